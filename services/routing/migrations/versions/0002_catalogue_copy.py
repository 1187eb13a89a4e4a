"""Routing's own copy of the catalog's log.

Revision ID: 0002
"""

from shared.catalogue.copy import create_catalogue_table

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    create_catalogue_table()
