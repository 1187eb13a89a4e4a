"""Alembic's entry into the billing service's history of its database."""

from shared.eventstore import alembic_env

alembic_env.run()
