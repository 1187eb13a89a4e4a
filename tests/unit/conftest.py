"""For the fast tests: they wait for no disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.folders import brief_folder


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """pytest's own, but in memory where the machine offers that: a run makes a thousand databases, each on its disk."""
    with brief_folder() as folder:
        yield Path(folder)
