"""For the fast tests: they wait for no disk, and those that only ask a market questions share it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.folders import brief_folder
from tests.unit.audit_plans import Subscribers, subscribed_months
from tests.unit.audit_scene import Scene
from tests.unit.audit_world import Market, two_months

FIXED_SEED = 5  # a market in which everything happens that tests tamper with


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """pytest's own, but in memory where the machine offers that: a run makes a thousand databases, each on its disk."""
    with brief_folder() as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def market() -> Iterator[Market]:
    """Two months of business, audited as it is. Whoever wants something to happen in a market makes one."""
    with brief_folder() as folder:
        made = two_months(Path(folder), FIXED_SEED)
        yield from _unchanged(made)


@pytest.fixture(scope="session")
def subscribers() -> Iterator[Subscribers]:
    """Two months of subscribers, in the same way."""
    with brief_folder() as folder:
        made = subscribed_months(Path(folder))
        yield from _unchanged(made)


def _unchanged(market: Any) -> Iterator[Any]:
    before = market.heads()
    yield market
    after = market.heads()
    market.close()
    assert after == before, "a market that tests share was changed by one of them"


@pytest.fixture
def scene(market: Market) -> Scene:
    """Somebody between the module's market and its auditor."""
    return Scene(market)
