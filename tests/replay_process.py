"""`python -m tests.replay_process ARGUMENTS`: `tokengrid audit replay ARGUMENTS`, which saves very often and says so.

Each time that it has saved it writes a line `saved` to standard error, and waits until somebody writes one back: so
whoever started it can kill it right there, or let it run on into the next piece.
"""

from __future__ import annotations

import sys

from services.audit import resuming
from services.audit.replay import debits, reader, state
from tokengrid import cli


class Telling(resuming.Folder):
    def save(self, state: bytes) -> None:
        super().save(state)
        sys.stderr.write("saved\n")
        sys.stderr.flush()
        sys.stdin.readline()


if __name__ == "__main__":
    state.EVERY, state.SHARE = 40, 0
    reader.SECTION, reader.PAGE, debits.PIECE = 64, 64, 16
    resuming.Folder = Telling  # type: ignore[misc]
    raise SystemExit(cli.run(["audit", "replay", *sys.argv[1:]]))
