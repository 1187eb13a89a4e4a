"""Catalog: what can be bought, and when which price holds. See README.md."""
