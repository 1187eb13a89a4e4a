"""The archive: events of the past as Parquet files, by log and day, with the tiles and checkpoints that prove them.

Written with pyarrow, asked with DuckDB: the extra `archive` installs both, and nothing else needs them. What is stored
gives back every byte of every event; what it is stored as may change under another format tag only.
"""
