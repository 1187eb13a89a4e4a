"""`Prompt`: tells followers that a service's log has grown, so that they pull at once instead of at their next poll.

A hint and nothing more: unconfirmed, merged when they come fast, never in a worker's way. A lost one costs
a follower at most one poll interval. It must know nothing of the events.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import eventlet
from nameko.extensions import DependencyProvider

from shared.errors import Unavailable
from shared.messaging import codec
from shared.messaging.link import PROMPT_EXCHANGE
from shared.messaging.wire import Wire, settings_of

log = logging.getLogger(__name__)

# At most one prompt in this time; what comes in between is told by the next one.
PROMPT_INTERVAL_S = 0.02


class Prompt(DependencyProvider):  # type: ignore[misc]
    """`prompt = Prompt()` in a service class; after a commit, `self.prompt(head)`.

    Another extension may hold one as its own sub-extension and call `send`.
    """

    wire = Wire()

    def __init__(self) -> None:
        self._heads: dict[int, int] = {}  # by shard, those that are still to be told
        self._sender: Any = None

    def bind(self, container: Any, attr_name: str = "prompt") -> Any:
        return super().bind(container, attr_name)

    def get_dependency(self, worker_ctx: Any) -> Callable[[int], None]:  # noqa: ARG002
        return self.send

    def send(self, head: int, shard: int = 0) -> None:
        """The log, or that of a shard, has grown to position `head`. Returns at once and never raises."""
        self._heads[shard] = max(self._heads.get(shard, 0), head)
        if self._sender is None:
            self._sender = eventlet.spawn(self._run)

    def _run(self) -> None:
        try:
            while self._heads:
                grown, self._heads = self._heads, {}
                for shard, head in grown.items():
                    self._publish(shard, head)
                eventlet.sleep(PROMPT_INTERVAL_S)
        finally:
            self._sender = None

    def _publish(self, shard: int, head: int) -> None:
        log_name = settings_of(self.container.config).logs(self.container.service_name)[shard]
        try:
            self.wire.caller.link.publish(codec.encode({"head": head}), PROMPT_EXCHANGE, log_name)
        except Unavailable as exc:
            log.debug("a prompt was lost: %s", exc)
