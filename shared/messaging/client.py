"""Calling a service: `Client` from anywhere, `Peers` from within another service.

Every call has a deadline and ends in an answer, the service's own error, `DeadlineExceeded` or
`Unavailable`; there is no call without an end. A request expires in its queue with the deadline, so that
nothing is executed for a caller who has gone. It works with stock nameko services, and stock nameko
clients with ours. It must know nothing of what is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from nameko.extensions import DependencyProvider

from shared.config import Settings
from shared.messaging.calls import Caller, Pending
from shared.messaging.wire import Wire

__all__ = ["BoundCaller", "Client", "Peers", "Pending"]


class Client:
    """Calls services from any process (or from the one that runs them). Safe for many green threads.

    >>> with Client(settings) as client:
    ...     client.call("quota", "balance", operator="cm-gd", account="a1")

    Close it (or leave its `with` block) when done.
    """

    def __init__(self, settings: Settings, name: str = "client") -> None:
        self._caller = Caller(settings, name)
        self._caller.link.start()

    def call(
        self, service: str, method: str, /, *, deadline_s: float | None = None, retries: int = 0, **kwargs: Any
    ) -> Any:
        """The answer of `service.method(**kwargs)`, within `deadline_s` seconds (default: the settings' one).

        `retries`: how often to try again after a retryable error, each time with the full deadline; use it
        where repeating the command has one effect. Raises the service's errors (ours as they are,
        others as nameko's RemoteError), DeadlineExceeded, Unavailable.
        """
        return self._caller.call(service, method, kwargs, deadline_s, retries)

    def submit(self, service: str, method: str, /, *, deadline_s: float | None = None, **kwargs: Any) -> Pending:
        """Send a request and do not wait: `.result()` of what is returned waits. For pipelining."""
        return self._caller.submit(service, method, kwargs, deadline_s)

    def results(self, pending: Iterable[Pending]) -> list[Any]:
        """The answers of several requests, in their order."""
        return [each.result() for each in pending]

    @property
    def pending_count(self) -> int:
        """How many requests are still awaited."""
        return self._caller.pending_count

    def close(self) -> None:
        self._caller.link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BoundCaller:
    """What a worker gets from `Peers`: `call` and `submit` as in `Client`."""

    def __init__(self, caller: Caller, headers: Callable[[], dict[str, Any]]) -> None:
        self._caller, self._headers = caller, headers

    def call(
        self, service: str, method: str, /, *, deadline_s: float | None = None, retries: int = 0, **kwargs: Any
    ) -> Any:
        return self._caller.call(service, method, kwargs, deadline_s, retries, self._headers())

    def submit(self, service: str, method: str, /, *, deadline_s: float | None = None, **kwargs: Any) -> Pending:
        return self._caller.submit(service, method, kwargs, deadline_s, self._headers())


class Peers(DependencyProvider):  # type: ignore[misc]
    """`peers = Peers()` in a service class: `self.peers.call("catalog", "models")` in its methods."""

    wire = Wire()

    def get_dependency(self, worker_ctx: Any) -> BoundCaller:
        # nameko's call id stack goes along, so that its logs can be followed through services.
        return BoundCaller(self.wire.caller, lambda: {"nameko.call_id_stack": worker_ctx.call_id_stack})
