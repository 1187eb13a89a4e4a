"""Pure decisions about publications: no I/O, no clock, no library but the published language."""
