"""Several shards of quota behind one door: each account in its shard and nowhere else, and nobody notices."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from services.quota.application import QuotaApplication
from services.quota.schemas import Balance, Balances, Find, Statement, Sweep
from services.quota.shards import QuotaShards
from shared.clock import FrozenClock
from shared.config import Settings
from shared.errors import LimitExceeded, MalformedCommand, SetupFailed, Unavailable, UnknownAccount
from shared.eventstore.intake import Request
from shared.sharding import log_of, shard_of
from tests.unit.quota_world import OPERATOR, START, catalogue_page

SHARDS = 4
NAMES = [f"a{n}" for n in range(20)]


def opened(folder: Path, shards: int = SHARDS, **settings: Any) -> QuotaShards:
    """The shards on databases in `folder`, with prices."""
    house = QuotaShards(Settings(var=folder, quota_shards=shards, **settings), FrozenClock(START))
    house.follow_catalog([event._asdict() for event in catalogue_page()])
    return house


@pytest.fixture
def house(tmp_path: Path) -> Iterator[QuotaShards]:
    made = opened(tmp_path)
    yield made
    made.close()


def command(name: str, account: str, request_id: str, **fields: Any) -> dict[str, Any]:
    return {"command": name, "operator": OPERATOR, "account": account, "request_id": request_id, **fields}


def openings(names: list[str] = NAMES) -> list[dict[str, Any]]:
    return [command("open_account", name, "open") for name in names]


def owners(application: QuotaApplication) -> set[str]:
    return {event.stream.partition("/")[2] for event in application.log.read(0, 1000)}


def followed(house: QuotaShards) -> None:
    """Every shard's read model up to the head of its own log."""
    for number, application in enumerate(house.shards):
        house.follow_quota([e._asdict() for e in application.log.read(house.follow_quota([], number), 5000)], number)


def in_shard(shard: int) -> str:
    return next(name for name in NAMES if shard_of(OPERATOR, name, SHARDS) == shard)


# --- where an account is -----------------------------------------------------------------------
def test_an_account_is_in_the_log_of_its_shard_and_in_no_other(house: QuotaShards) -> None:
    for name in NAMES:
        house.submit("open_account", {"operator": OPERATOR, "account": name, "request_id": "open"})
    for number, application in enumerate(house.shards):
        assert owners(application) == {name for name in NAMES if shard_of(OPERATOR, name, SHARDS) == number}


def test_each_shard_numbers_its_log_from_one(house: QuotaShards) -> None:
    house.execute(openings())
    for application in house.shards:
        positions = [event.position for event in application.log.read(0, 100)]
        assert positions == list(range(1, application.log.head() + 1)) != []


def test_each_shard_has_a_database_of_its_own(house: QuotaShards, tmp_path: Path) -> None:
    assert {path.name for path in tmp_path.glob("*.db")} == {f"quota_{n}.db" for n in range(SHARDS)}


def test_one_shard_is_what_there_was_before(tmp_path: Path) -> None:
    house = opened(tmp_path, shards=1)
    house.execute(openings())
    house.close()
    assert [path.name for path in tmp_path.glob("*.db")] == ["quota.db"]
    assert [application.log_name for application in house.shards] == ["quota"]


def test_the_shards_logs_are_called_after_them(house: QuotaShards) -> None:
    assert [application.log_name for application in house.shards] == ["quota-0", "quota-1", "quota-2", "quota-3"]
    assert log_of(OPERATOR, in_shard(2), SHARDS) == "quota-2"


def test_the_number_of_an_accounts_shard_is_for_good() -> None:
    known = {"a0": 2, "a1": 2, "a2": 3, "13800000001": 1}
    assert {name: shard_of(OPERATOR, name, SHARDS) for name in known} == known


# --- commands ----------------------------------------------------------------------------------
def test_a_batch_is_answered_in_its_own_order(house: QuotaShards) -> None:
    batch = openings() + [command("grant", name, "g", amount=1000, source="purchase") for name in NAMES]
    batch.insert(7, command("grant", "nobody", "g", amount=1, source="purchase"))
    batch.insert(9, {"command": "grant", "operator": 5})
    answers = house.execute(batch)
    assert [answer.get("error", {}).get("code") for answer in answers[7:10]] == [
        "UnknownAccount",
        None,
        "MalformedCommand",
    ]
    told = [(answer["ok"]["account"], answer["ok"]["kind"]) for answer in answers if "ok" in answer]
    assert told == [(name, kind) for kind in ("AccountOpened", "PointsGranted") for name in NAMES]


def test_an_accounts_commands_in_a_batch_follow_each_other(house: QuotaShards) -> None:
    steps = [
        (command("open_account", name, "open"), command("grant", name, "g", amount=1000, source="purchase"))
        for name in NAMES
    ]
    assert all("ok" in answer for answer in house.execute([step for steps_ in steps for step in steps_]))


def test_a_batch_again_is_answered_as_before(house: QuotaShards) -> None:
    first = house.execute(openings())
    heads = [application.log.head() for application in house.shards]
    again = house.execute(openings())
    assert all(answer["ok"].pop("replayed") for answer in again)
    assert not any(answer["ok"].pop("replayed") for answer in first)
    assert again == first
    assert [application.log.head() for application in house.shards] == heads


@pytest.mark.parametrize("commands", [None, "x", {"a": 1}])
def test_what_is_no_batch_is_refused(house: QuotaShards, commands: Any) -> None:
    with pytest.raises(MalformedCommand):
        house.execute(commands)


def test_a_batch_is_bounded_over_all_shards(tmp_path: Path) -> None:
    house = opened(tmp_path, batch_max=10)
    with pytest.raises(LimitExceeded):
        house.execute(openings(NAMES[:11]))
    assert house.status()["head"] == 0
    house.close()


def test_where_a_shard_is_away_the_others_take_their_part_and_a_repetition_does_the_rest(
    house: QuotaShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> Any:
        raise Unavailable("the event store cannot be reached")

    with monkeypatch.context() as broken:
        broken.setattr(house.shards[1], "execute", away)
        with pytest.raises(Unavailable):
            house.execute(openings())
    assert [application.log.head() > 0 for application in house.shards] == [True, False, True, True]
    replayed = [answer["ok"]["replayed"] for answer in house.execute(openings())]
    assert replayed == [shard_of(OPERATOR, name, SHARDS) != 1 for name in NAMES]


@pytest.mark.parametrize("account", [5, None, "\ud800", "no spaces", ""])
def test_an_account_that_is_none_is_refused_as_ever(house: QuotaShards, account: Any) -> None:
    with pytest.raises(MalformedCommand):
        house.submit("open_account", {"operator": OPERATOR, "account": account, "request_id": "r"})


def test_a_shard_refuses_an_account_of_another(house: QuotaShards) -> None:
    fields = {"operator": OPERATOR, "account": in_shard(2), "request_id": "open"}
    with pytest.raises(MalformedCommand, match="another shard"):
        house.shards[1].submit("open_account", fields)
    body = json.dumps({"args": [], "kwargs": fields}).encode()
    (refused,) = house.serve(1, [Request("open_account", body)])
    assert isinstance(refused, MalformedCommand)
    assert house.status()["head"] == 0


def test_a_shard_serves_its_own_accounts(house: QuotaShards) -> None:
    body = json.dumps(
        {"args": [], "kwargs": {"operator": OPERATOR, "account": in_shard(2), "request_id": "open"}}
    ).encode()
    (answer,) = house.serve(2, [Request("open_account", body)])
    assert isinstance(answer, bytes)
    assert json.loads(answer)["position"] == 1


def test_each_shard_says_when_it_has_committed(house: QuotaShards) -> None:
    told: list[tuple[int, int]] = []
    for number, application in enumerate(house.shards):
        application.on_commit = lambda head, number=number: told.append((number, head))  # type: ignore[misc]
    house.submit("open_account", {"operator": OPERATOR, "account": in_shard(3), "request_id": "open"})
    assert told == [(3, 1)]


# --- questions -----------------------------------------------------------------------------------
def test_questions_about_an_account_go_to_its_shard(house: QuotaShards) -> None:
    house.execute(openings() + [command("grant", name, "g", amount=7, source="purchase") for name in NAMES])
    for name in NAMES:
        about = {"operator": OPERATOR, "account": name}
        assert house.balance(Balance(**about))["available"] == 7
        assert [event["kind"] for event in house.statement(Statement(**about))["events"]] == [
            "AccountOpened",
            "PointsGranted",
        ]
        assert house.find(Find(**about, name="g"))["event"]["amount"] == 7
    with pytest.raises(UnknownAccount):
        house.balance(Balance(operator=OPERATOR, account="nobody"))


def test_balances_are_listed_by_shard_and_all_together_are_all(house: QuotaShards) -> None:
    house.execute(openings())
    followed(house)
    pages = [house.balances(Balances(shard=number)) for number in range(SHARDS)]
    assert sorted(row["account"] for page in pages for row in page["accounts"]) == sorted(NAMES)
    assert [page["position"] for page in pages] == [application.log.head() for application in house.shards]
    with pytest.raises(MalformedCommand):
        house.balances(Balances(shard=SHARDS))


def test_the_status_tells_of_each_shard_and_of_all(house: QuotaShards) -> None:
    house.execute(openings())
    status = house.status()
    assert [shard["log"] for shard in status["shards"]] == [f"quota-{n}" for n in range(SHARDS)]
    assert status["head"] == sum(shard["head"] for shard in status["shards"]) == len(NAMES)
    assert status["followed"] == {"catalog": len(catalogue_page()), "quota": 0}
    followed(house)
    assert house.status()["followed"]["quota"] == len(NAMES)


def test_a_sweep_goes_through_all_shards_within_its_limit(house: QuotaShards) -> None:
    house.execute(openings())
    soon = START.replace(hour=1).isoformat()
    lots = [command("grant", name, "g", amount=7, source="trial", expires_at=soon) for name in NAMES]
    assert all("ok" in answer for answer in house.execute(lots))
    followed(house)
    for application in house.shards:
        application.clock.now = START.replace(hour=2)  # type: ignore[attr-defined]
    done = house.sweep(Sweep(limit=12))
    assert done == {"expired_reservations": 0, "expired_grants": 12, "remaining": True}
    followed(house)
    assert house.sweep(Sweep()) == {"expired_reservations": 0, "expired_grants": 8, "remaining": False}


def test_a_catalogue_that_some_shards_have_is_given_to_the_others(tmp_path: Path) -> None:
    house = QuotaShards(Settings(var=tmp_path, quota_shards=SHARDS), FrozenClock(START))
    page = [event._asdict() for event in catalogue_page()]
    house.shards[2].follow_catalog(page)
    assert house.follow_catalog([]) == 0
    assert house.follow_catalog(page) == len(page)
    house.close()


# --- the number of shards ------------------------------------------------------------------------
@pytest.mark.parametrize("other", [3, 5])
def test_another_number_of_shards_than_at_the_first_start_is_refused(tmp_path: Path, other: int) -> None:
    opened(tmp_path).close()
    with pytest.raises(SetupFailed, match=f"shard 0 of 4, and cannot be shard 0 of {other}"):
        QuotaShards(Settings(var=tmp_path, quota_shards=other))
    opened(tmp_path).close()  # as it was it goes on


@pytest.mark.parametrize(("first", "then"), [(1, SHARDS), (SHARDS, 1)])
def test_events_of_the_other_shape_are_not_passed_over(tmp_path: Path, first: int, then: int) -> None:
    house = opened(tmp_path, shards=first)
    house.execute(openings(["a1"] if first == 1 else [in_shard(0)]))
    house.close()
    with pytest.raises(SetupFailed, match="fixed for good"):
        QuotaShards(Settings(var=tmp_path, quota_shards=then))


def test_the_database_of_another_shard_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).close()
    (tmp_path / "quota_1.db").rename(tmp_path / "quota_9.db")
    (tmp_path / "quota_2.db").rename(tmp_path / "quota_1.db")
    with pytest.raises(SetupFailed, match="shard 2 of 4, and cannot be shard 1"):
        QuotaShards(Settings(var=tmp_path, quota_shards=SHARDS))


def test_a_database_from_before_there_were_shards_goes_on_as_the_only_one(tmp_path: Path) -> None:
    house = opened(tmp_path, shards=1)
    house.execute(openings(["a1"]))
    house.close()
    database = sa.create_engine(f"sqlite:///{tmp_path}/quota.db")
    with database.begin() as connection:
        connection.execute(sa.text("DELETE FROM sharding"))
    database.dispose()
    again = opened(tmp_path, shards=1)
    assert again.balance(Balance(operator=OPERATOR, account="a1"))["status"] == "open"
    again.close()


def test_several_shards_in_one_database_are_refused(tmp_path: Path) -> None:
    settings = Settings(var=tmp_path, quota_shards=2, database=f"sqlite:///{tmp_path}/all.db")
    with pytest.raises(SetupFailed, match="a database of its own"):
        QuotaShards(settings)
