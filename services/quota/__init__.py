"""Quota: who may spend what. See README.md."""
