"""`Hosted`: a room's application as a nameko dependency, made once per process and closed at its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from nameko.extensions import DependencyProvider

from shared.config import Settings
from shared.messaging.prompts import Prompt


class RoomApplication(Protocol):
    """What every room's application has: made from the settings alone, and able to close."""

    on_commit: Callable[[int], None]

    def close(self) -> None: ...


class Hosted(DependencyProvider):  # type: ignore[misc]
    """`app = Hosted(QuotaApplication)` in a service class; workers get the application itself.

    Each commit prompts the followers of this service's log.
    """

    prompt = Prompt()

    def __init__(self, factory: Callable[[Settings], Any]) -> None:
        self.factory = factory
        self.application: Any = None

    def setup(self) -> None:
        self.application = self.factory(self.container.config["tokengrid"])
        self.application.on_commit = self.prompt.send

    def get_dependency(self, worker_ctx: Any) -> Any:  # noqa: ARG002
        return self.application

    def stop(self) -> None:
        if self.application is not None:
            self.application.close()
