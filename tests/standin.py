"""A service with nothing to it but its process: `python -m tests.standin NAME [exit]`.

For tests of what starts and keeps processes. It answers `ping` with its pid and what it was given.
"""

import shared.messaging.patch  # isort: skip  # noqa: F401

import os
import sys
from typing import Any

from shared.messaging.rpc import rpc
from tokengrid.serve import main


class Echo:
    name = "echo"

    @rpc
    def ping(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "database": os.environ["TOKENGRID_DATABASE"], "var": os.environ["TOKENGRID_VAR"]}


if __name__ == "__main__":
    if sys.argv[2:] == ["exit"]:
        raise SystemExit("the disk is on fire")
    raise SystemExit(main(sys.argv[1:2], {"echo": "tests.standin:Echo"}))
