"""Proofs that a log is what it says and was only ever appended to.

Pure: no I/O, no clock, no knowledge of events, services or databases. README.md says which file
follows which standard.
"""
