"""Pure decisions about where a call runs: no I/O, no clock, no floats; time comes in as integer milliseconds."""
