"""Several pieces of work at the same time."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any


def at_once(works: list[Callable[[], Any]]) -> None:
    """Returns when all are done. Raises what one of them raised; fails if one is stuck."""
    failures: list[BaseException] = []

    def run(work: Callable[[], Any]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised below, in the test
            failures.append(error)

    threads = [Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "stuck"
    if failures:
        raise failures[0]
