"""Where tests find and leave files: reference data beside the project, and folders for databases that live as long as
one example of many: in memory, where the machine offers that.

A database there writes as elsewhere, but waits for no disk. What a test says of a disk does not belong there.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

# Published data that the project does not ship; what needs it is skipped where it is not.
REFERENCE = Path(os.environ.get("TOKENGRID_REFERENCE", Path(__file__).parents[2] / "shared"))
IN_MEMORY = Path("/dev/shm")
IN_MEMORY_MIN_BYTES = 500 * 10**6  # a container may have less than the larger tests need
IN_MEMORY_MIN_BYTES_SERVERS = (
    8 * 10**9
)  # of all parts of a run together; each PostgreSQL may have a gigabyte of its log


def brief_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that is gone when the block is left."""
    return tempfile.TemporaryDirectory(dir=place_with(IN_MEMORY_MIN_BYTES))


def place_with(free_bytes: int) -> Path:
    """Where folders are made: in memory, if so much is free there."""
    roomy = IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free > free_bytes
    return IN_MEMORY if roomy else Path(tempfile.gettempdir())
