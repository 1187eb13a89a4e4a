"""A server's state file: ports, names, secrets and marks, readable by its owner alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically; only its owner may read it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def save(path: Path, state: dict[str, Any]) -> None:
    write_private(path, json.dumps(state, indent=1, sort_keys=True) + "\n")


def load(path: Path) -> dict[str, Any]:
    """What was saved; empty when nothing was."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return {}
    state = json.loads(text)
    assert isinstance(state, dict)
    return state
