"""The folder in which a replay keeps how far it has come. The file there is whole or not at all; what it means, it must
not know.

It has its format's name, its hash, and the state. The hash tells damage. Whoever can write into the folder can make an
audit say what he likes, as who can change the program: it belongs to the auditor.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import Busy, SetupFailed

FORMAT = b"tokengrid/replay-state/v1"
FILE, LOCK = "replay.state", "replay.lock"


class Folder:
    """One replay's folder. Use `opened`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / FILE

    def load(self) -> bytes | None:
        """What was saved last; None: nothing. Raises SetupFailed for what is damaged, or of another format."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SetupFailed(f"{self.path} cannot be read: {error.strerror}.") from None
        name, _, rest = data.partition(b"\n")
        digest, _, state = rest.partition(b"\n")
        if name != FORMAT:
            raise SetupFailed(f"{self.path} is not the state of a replay, or of another format: name another folder.")
        if hashlib.sha256(state).hexdigest().encode() != digest:
            raise SetupFailed(f"{self.path} is damaged: its hash is another. Remove it, to begin anew.")
        return state

    def save(self, state: bytes) -> None:
        """Whole or not at all, durable on return."""
        draft = self.path.with_name(f"{FILE}.draft")
        try:
            with draft.open("wb") as file:
                file.writelines((FORMAT, b"\n", hashlib.sha256(state).hexdigest().encode(), b"\n", state))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path)
            opened = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)
        except OSError as error:
            raise SetupFailed(
                f"{self.path} cannot be written: {error.strerror}. What was saved before is there."
            ) from None

    def remove(self) -> None:
        """The replay has come to its report: there is nothing to go on with."""
        self.path.unlink(missing_ok=True)


@contextmanager
def opened(folder: Path) -> Iterator[Folder]:
    """A folder, made if there is none; it is this process's meanwhile. Raises Busy where another is at work in it,
    SetupFailed where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w")
    except OSError as error:
        raise SetupFailed(f"{folder} cannot be the folder of a replay's state: {error.strerror}.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Busy(f"Another replay keeps its state in {folder}.", {"folder": str(folder)}) from None
        yield Folder(folder)
