"""The production shape, once for all end-to-end tests that need it: to start and stop it takes half a minute."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tokengrid import up as shape
from tokengrid.servers import PostgreSQL


@pytest.fixture(scope="session")
def production_shape(servers_folder: Path) -> Iterator[Path]:
    """A folder whose production shape is up. What is killed in it must come back before the test ends."""
    folder = servers_folder / "shape"
    shape.up(folder)
    yield folder
    shape.down(folder)
    PostgreSQL(folder / "up" / "postgresql").remove()
