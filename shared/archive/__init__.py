"""Archived logs: events of the past as Parquet files, by day, with the tiles and checkpoints that prove them; reading.

Audit writes them (`services/audit/archive`), any service may read its own log there once the database has dropped it.
Needs pyarrow, which the extra `archive` installs; nothing that runs without an archive imports it. What is stored
gives back every byte of every event; what it is stored as may change under another format tag only.
"""
