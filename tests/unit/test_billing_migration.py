"""Books from before quota had several shards are those of shard 0 afterwards; what was not kept then is empty."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from services.billing import tables as t
from shared.eventstore.database import engine, migrate

FOLDER = Path(__file__).parents[2] / "services" / "billing" / "migrations"
SUMS = "10, 1, 2, 3, 4, 5"


def before(url: str) -> sa.Engine:
    """A database as the last release without shards left it."""
    database = engine(url)
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.set_main_option("path_separator", "os")
    with database.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        for statement in (
            "INSERT INTO accounts VALUES ('sh', 'a1', 7, '2026-06-01', 8, '', 9)",
            f"INSERT INTO wholesale VALUES ('2026-06', 'sh', 'gd', 'm', '2026-06-01', 0, {SUMS})",
            f"INSERT INTO wholesale VALUES ('2026-06', 'sh', 'gd', 'm', '2026-06-01', 44, {SUMS})",
            "INSERT INTO grants VALUES ('sh', 'a1', 9, '2026-06', 8, 'plan', 5, 6, 'm-990', 1)",
            "INSERT INTO bills VALUES"
            " ('sh-2026-06-000001', 'sh', 'a1', '2026-06', 1, 5, 2, '2026-07-01', 90, 5, 4, 3, 44, 'f')",
            "INSERT INTO periods VALUES ('sh', '2026-06', 43, true)",
        ):
            connection.exec_driver_sql(statement)
    return database


def test_they_keep_every_row(tmp_path: Path) -> None:
    database = before(f"sqlite:///{tmp_path}/billing.db")
    migrate(database, "billing")
    w = t.wholesale.c
    with database.connect() as connection:
        (account,) = connection.execute(sa.select(t.accounts)).mappings()
        wholesale = connection.execute(sa.select(w.shard, w.segment, w.calls, w.output, w.amount).order_by(w.segment))
        assert [tuple(row) for row in wholesale] == [(0, 0, 10, 4, 5), (0, 44, 10, 4, 5)]
        assert [tuple(row) for row in connection.execute(sa.select(t.periods))] == [("sh", "2026-06", 0, 43, True)]
        (grant,) = connection.execute(sa.select(t.grants)).mappings()
        (bill,) = connection.execute(sa.select(t.bills)).mappings()
    assert (grant["position"], grant["amount"], grant["plan"], grant["name"]) == (9, 5, "m-990", "")
    assert (account["subscriber"], account["closed"], account["closed_us"]) == ("", 0, 0)
    assert (bill["void"], bill["void_position"], bill["credit_fen"], bill["billing_position"]) == (0, 0, 0, 0)
    assert (bill["serial"], bill["quota_position"], bill["paid_fen"]) == (1, 44, 4)
    assert (account["position"], account["shard"], account["opened_us"], account["credit_limit"]) == (7, 0, 8, 9)
    database.dispose()


def test_an_account_may_have_another_bill_for_a_period_only_once_the_first_is_void(tmp_path: Path) -> None:
    database = before(f"sqlite:///{tmp_path}/billing.db")
    migrate(database, "billing")
    with database.begin() as connection:
        first = dict(connection.execute(sa.select(t.bills)).mappings().one())
        second = first | {"number": "sh-2026-06-000002", "serial": 2}
        with pytest.raises(sa.exc.IntegrityError):
            connection.execute(sa.insert(t.bills), [second])
        connection.execute(sa.update(t.bills).values(void=1))
        connection.execute(sa.insert(t.bills), [second])
        with pytest.raises(sa.exc.IntegrityError):
            connection.execute(sa.insert(t.bills), [second | {"number": "sh-2026-06-000003", "serial": 3}])
    database.dispose()
