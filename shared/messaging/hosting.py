"""`Hosted`: a room's application as a nameko dependency, made once per process and closed at its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from nameko.extensions import DependencyProvider

from shared.config import Settings
from shared.eventstore.application import RoomApplication
from shared.messaging.prompts import Prompt


class Application(Protocol):
    """What can be hosted: a room's application, or one that keeps several shards of it."""

    @property
    def shards(self) -> Sequence[RoomApplication]:
        """Its shards in order, each with a log of its own."""

    def close(self) -> None:
        """Let go of everything."""


class Hosted(DependencyProvider):  # type: ignore[misc]
    """`app = Hosted(QuotaApplication)` in a service class; workers get the application itself.

    Each commit prompts the followers of the log that has grown.
    """

    prompt = Prompt()

    def __init__(self, factory: Callable[[Settings], Application]) -> None:
        self.factory = factory
        self.application: Application | None = None

    def setup(self) -> None:
        application = self.application = self.factory(self.container.config["tokengrid"])
        for number, shard in enumerate(application.shards):
            shard.on_commit = partial(self.prompt.send, shard=number)

    def get_dependency(self, worker_ctx: Any) -> Any:  # noqa: ARG002
        return self.application

    def stop(self) -> None:
        if self.application is not None:
            self.application.close()
