"""Billing: what it costs in money."""
