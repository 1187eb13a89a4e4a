"""Pure decisions about accounts: no I/O, no clock, no library but the published language."""
