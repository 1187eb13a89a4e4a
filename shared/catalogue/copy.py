"""The durable copy of the catalog's log in a service's own database, and the view folded from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

from shared.catalogue.view import CatalogueView
from shared.contracts import catalog as _catalog  # noqa: F401 - registers the events that are decoded below
from shared.contracts.base import decode_event
from shared.errors import Conflict
from shared.eventstore.log import LoggedEvent
from shared.eventstore.projection import Projector

TABLE = "catalogue_copy"
_table = sa.table(
    TABLE,
    sa.column("position", sa.BigInteger),
    sa.column("topic", sa.Text),
    sa.column("state", sa.Text),
)


def create_catalogue_table() -> None:
    """For a service's migration."""
    op.create_table(
        TABLE,
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
    )


class CatalogueCopy:
    """Follows the catalog: `follow(page)` is what a service's follower calls; `view` is what decisions read."""

    name = "catalogue_copy"

    def __init__(self, engine: sa.Engine) -> None:
        self.view = CatalogueView()
        self._engine = engine
        self._projector = Projector(engine, self)
        self._refresh()

    def apply(self, connection: sa.Connection, page: Sequence[LoggedEvent]) -> None:
        """Projection: keep the page's rows."""
        connection.execute(
            sa.insert(_table), [{"position": e.position, "topic": e.topic, "state": e.state} for e in page]
        )

    def follow(self, page: Sequence[LoggedEvent | Mapping[str, Any]]) -> int:
        """Take a page of the catalog's log; the position then reached. Replicas of one database share the rows."""
        try:
            if page:
                self._projector.apply(page)
        except Conflict:
            pass  # another replica stored the page; its rows are read below
        self._refresh()
        return self.view.position

    def _refresh(self) -> None:
        with self._engine.connect() as connection:
            rows = connection.execute(
                sa.select(_table).where(_table.c.position > self.view.position).order_by(_table.c.position)
            ).all()
        for position, topic, state in rows:
            if position == self.view.position + 1:
                self.view.apply(position, decode_event(topic, state))
