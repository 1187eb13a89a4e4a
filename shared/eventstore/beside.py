"""A transaction's statements in a thread of their own, while we compute what comes next.

A server has processors of its own. SQLite's work is done in our process, under a lock that others need: there it is
done when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Beside:
    """Does what it is given, one thing after the other; nothing after one that failed. When it is left, all is done or
    has been given up, and whatever failed was raised."""

    def __init__(self, threaded: bool) -> None:
        """Not `threaded`: each thing is done before `do` returns."""
        self.threaded = threaded
        self._pool = ThreadPoolExecutor(1)  # begins its thread with the first thing that it is given
        self._last: Future[Any] | None = None

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown()
        if failure is None:
            self._wait()

    def do(self, work: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
        """Begin with this once the last thing is done. Raises what that raised."""
        self._wait()
        if self.threaded:
            self._last = self._pool.submit(work, *args, **kwargs)
        else:
            work(*args, **kwargs)

    def ask(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do this once the last thing is done; its result. Raises what either raised."""
        self._wait()
        return work(*args, **kwargs)

    def _wait(self) -> None:
        if self._last is not None:
            self._last.result()
