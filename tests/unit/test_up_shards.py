"""What `tokengrid up` plans for several shards of quota, and what a later command knows of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shared.config import Settings
from shared.errors import SetupFailed
from tokengrid import session, supervise
from tokengrid import up as shape

COMMANDS = {"quota": ["serve", "quota"], "billing": ["serve", "billing"]}


def planned(folder: Path, shards: int, replicas: int = 3) -> dict[str, supervise.Program]:
    folder.mkdir(parents=True, exist_ok=True)
    servers: list[Any] = [
        SimpleNamespace(url=lambda name: f"postgresql+psycopg://{name}:p@127.0.0.1:5/{name}"),
        SimpleNamespace(uri="amqp://b"),
    ]
    plan = shape._plan(folder, COMMANDS, {"quota": replicas, "billing": 1}, shards, *servers)
    supervise.write_plan(folder, plan)
    return {program.name: program for program in plan}


def settings_of(program: supervise.Program, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """As the process would read them."""
    with monkeypatch.context() as environment:
        for name, value in program.env.items():
            environment.setenv(name, value)
        return Settings()


def test_every_shard_is_preferred_by_one_replica(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(tmp_path / "up", shards=7)
    preferred = [settings_of(plan[f"quota-{n}"], monkeypatch).quota_shards_preferred for n in (1, 2, 3)]
    assert preferred == [(0, 3, 6), (1, 4), (2, 5)]


def test_every_service_knows_the_number_and_quota_a_database_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(tmp_path / "up", shards=4)
    quota, billing = (settings_of(plan[name], monkeypatch) for name in ("quota-1", "billing-1"))
    assert (quota.quota_shards, billing.quota_shards) == (4, 4)
    assert quota.database_url("quota", 3) == "postgresql+psycopg://tokengrid_quota:p@127.0.0.1:5/tokengrid_quota_3"
    assert billing.database_url("billing").endswith("/tokengrid_billing")


def test_one_shard_is_planned_as_before_there_were_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(shape.SHARDS_PREFERRED, "[0]")
    plan = planned(tmp_path / "up", shards=1)
    assert not {shape.SHARDS, shape.SHARDS_PREFERRED} & plan["quota-1"].env.keys()
    assert plan["quota-1"].env["TOKENGRID_DATABASE"].endswith("/tokengrid_quota")


@pytest.mark.parametrize(("there", "wanted"), [(4, 2), (1, 2), (4, 1)])
def test_another_number_than_there_is_is_refused_before_anything_starts(
    tmp_path: Path, there: int, wanted: int
) -> None:
    planned(tmp_path / "up", there)
    with pytest.raises(SetupFailed, match=f"has {there} shards of quota, which is for good"):
        shape.up(tmp_path, shards=wanted)


def test_a_number_in_the_environment_counts_as_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned(tmp_path / "up", 4)
    monkeypatch.setenv(shape.SHARDS, "3")
    with pytest.raises(SetupFailed, match="has 4 shards"):
        shape.up(tmp_path)


@pytest.mark.parametrize("wanted", [0, shape.SHARDS_MAX + 1])
def test_more_shards_than_this_shape_bears_are_refused(tmp_path: Path, wanted: int) -> None:
    with pytest.raises(SetupFailed, match=f"{wanted} shards of quota: ask for 1 to {shape.SHARDS_MAX}"):
        shape.up(tmp_path, shards=wanted)


@pytest.mark.parametrize(("files", "shards"), [([], 1), (["quota.db"], 1), ([f"quota_{n}.db" for n in range(12)], 12)])
def test_the_embedded_services_have_as_many_shards_as_their_folder(
    tmp_path: Path, files: list[str], shards: int
) -> None:
    for name in files:
        (tmp_path / name).touch()
        (tmp_path / f"{name}.migrating").touch()
    assert session.embedded_settings(tmp_path).quota_shards == shards


def test_before_the_first_start_the_environment_says_how_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(shape.SHARDS, "3")
    assert session.embedded_settings(tmp_path).quota_shards == 3
    (tmp_path / "quota.db").touch()
    assert session.embedded_settings(tmp_path).quota_shards == 1
