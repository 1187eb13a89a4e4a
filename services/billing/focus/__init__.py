"""FOCUS 1.2, the FinOps Open Cost and Usage Specification: issued bills as its rows, and a checker of any such file."""
