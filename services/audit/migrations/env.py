"""Alembic's entry into the audit service's history of its database."""

from shared.eventstore import alembic_env

alembic_env.run()
