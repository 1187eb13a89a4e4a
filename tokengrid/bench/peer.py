"""The peer behind a broker, as a process: a stock nameko service, untouched, that one would write first.

`python -m tokengrid.bench.peer BROKER DATABASE`. Its one advantage over a first attempt: psycopg waits
cooperatively, as in our own services; without that it would be slower.
"""

import shared.messaging.patch  # isort: skip  # noqa: F401 - before anything else that does I/O

import sys
from collections.abc import Sequence

import sqlalchemy as sa
from nameko.cli.run import run
from nameko.extensions import DependencyProvider
from nameko.rpc import rpc

NAME = "peer"
TABLE = "CREATE TABLE IF NOT EXISTS balances (account text PRIMARY KEY, amount bigint NOT NULL)"
FILL = sa.text("INSERT INTO balances SELECT unnest(CAST(:accounts AS text[])), 100000000000000")
DEBIT = sa.text("UPDATE balances SET amount = amount - :amount WHERE account = :account AND amount >= :amount")


class Database(DependencyProvider):  # type: ignore[misc]
    """A pooled engine."""

    def setup(self) -> None:
        self.engine = sa.create_engine(self.container.config["DATABASE"], pool_size=10)

    def get_dependency(self, worker_ctx: object) -> sa.Engine:
        del worker_ctx
        return self.engine


class Peer:
    name = NAME
    database = Database()

    @rpc  # type: ignore[untyped-decorator]
    def nothing(self, **_fields: object) -> None:
        """What a call costs by itself."""

    @rpc  # type: ignore[untyped-decorator]
    def debit(self, account: str, amount: int, **_fields: object) -> bool:
        """A balance in a row: no history, no request key; repeated, it is taken twice."""
        with self.database.begin() as connection:
            return bool(connection.execute(DEBIT, {"account": account, "amount": amount}).rowcount)


def prepare(url: str, accounts: Sequence[str]) -> None:
    """The table and these accounts with a balance, in an empty database."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(TABLE))
        connection.execute(FILL, {"accounts": list(accounts)})
    engine.dispose()


if __name__ == "__main__":
    run([Peer], {"AMQP_URI": sys.argv[1], "DATABASE": sys.argv[2]})
