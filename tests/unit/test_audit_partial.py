"""A part of a log: counted, hashed, held against what was signed, and interrupted anywhere."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.audit.partial import Part, load_part, read_part, save_part
from shared.errors import AuditFailed, SetupFailed
from shared.transparency import merkle
from tests.unit.test_audit_sealing import events, leaves

COUNT = 2_500
LOG = events(0, COUNT)


class Logged:
    """A source of one log; `change` is done to every page."""

    def __init__(self, log: list[dict[str, Any]], change: Callable[[list[dict[str, Any]]], None] = len) -> None:
        self.log, self._change = log, change

    def call(self, service: str, method: str, /, **asked: Any) -> Any:
        if method == "head":
            return len(self.log)
        page = copy.deepcopy(self.log[asked["after"] : asked["after"] + asked["limit"]])
        self._change(page)
        return {"events": page}


def root(size: int) -> bytes:
    return merkle.root_at(merkle.StoredHashes(leaves(size)), size)


def read(log: list[dict[str, Any]] = LOG, part: Part | None = None, **options: Any) -> Part:
    return read_part(Logged(log), "quota", 0, part or Part("quota"), **options)


def test_a_whole_log_has_the_signed_roots() -> None:
    part = read(signed={700: root(700), COUNT: root(COUNT)})
    assert (part.first, part.position, part.events, part.checked) == (1, COUNT, COUNT, COUNT)
    assert part.root_sha256 == root(COUNT).hex()
    assert part.topics == {"quota.Something:1": COUNT}


def test_a_log_that_was_changed_has_other_roots() -> None:
    changed = copy.deepcopy(LOG)
    changed[650]["state"] += " "
    with pytest.raises(AuditFailed, match="up to 700 is not the one that was signed"):
        read(changed, signed={600: root(600), 700: root(700)})


@pytest.mark.parametrize("start", [1, 2, 1001, COUNT])
def test_an_interrupted_reading_goes_on_to_the_same_end(start: int, tmp_path: Path) -> None:
    path = tmp_path / "state"
    whole = read(start=start)
    for size in (start, 1200, 1201, COUNT):
        part = load_part(path, "quota")
        save_part(path, read(LOG[: max(size, start)], part, start=start))
    assert load_part(path, "quota") == whole
    assert whole.first == start
    assert path.stat().st_size < 2000
    assert [each.name for each in tmp_path.iterdir()] == ["state"]


def test_every_page_is_kept() -> None:
    seen: list[int] = []
    read(save=lambda part: seen.append(part.position))
    assert seen == [1000, 2000, COUNT]


@pytest.mark.parametrize(
    "change",
    [
        lambda page: page.pop(5),
        lambda page: page.insert(5, page[5]),
        lambda page: page.reverse(),
        lambda page: page.clear(),
        lambda page: page[3].update(position=2**70),
        lambda page: page[3].update(version=0),
    ],
)
def test_a_log_that_is_none_is_refused(change: Callable[[Any], None]) -> None:
    with pytest.raises(AuditFailed):
        read_part(Logged(LOG, change), "quota", 0, Part("quota"))


def test_a_log_that_became_shorter_is_refused() -> None:
    with pytest.raises(AuditFailed, match="was read up to"):
        read(LOG[:10], read())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"log":"quota","first":5,"position":3}',
        b'{"log":"quota","first":0,"position":3}',
        b'{"log":"quota","first":1,"position":3,"frontier":[]}',
        b'{"log":"quota","content_sha256":"zz"}',
        b'{"log":"billing"}',
        b'{"log":"quota","more":1}',
    ],
)
def test_a_state_that_is_none_is_refused_and_kept(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(content)
    with pytest.raises(SetupFailed):
        load_part(path, "quota")
    assert path.read_bytes() == content
