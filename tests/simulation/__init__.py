"""The ledger driven through faults at every step by seeded runs, and judged by an independent model."""
