"""Billing's pure decisions: metering, rating, settlement, canonical form. No I/O, no clock."""
