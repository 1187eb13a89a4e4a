"""The promises of lanes, over the in-process broker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.config import Settings
from shared.messaging import inproc
from tests.lane_behaviour import *  # noqa: F403 - the tests themselves


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    yield Settings(var=tmp_path)
    inproc.reset()
