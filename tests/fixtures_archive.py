"""An archive for all tests that only read it; what it needs is loaded when a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.folders import brief_folder


@pytest.fixture(scope="session")
def world() -> Iterator[Any]:
    """A market of some days and its archive, `archive_world.World`. Not to be changed."""
    pytest.importorskip("pyarrow", reason="the extra `archive` is not installed")
    from tests.unit.archive_world import World

    with brief_folder() as folder:
        made = World(Path(folder))
        yield made
        made.close()
