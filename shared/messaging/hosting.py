"""`Hosted`: a room's application as a nameko dependency, made once per process and closed at its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nameko.extensions import DependencyProvider

from shared.config import Settings
from shared.eventstore.application import RoomApplication
from shared.messaging.prompts import Prompt


class Hosted(DependencyProvider):  # type: ignore[misc]
    """`app = Hosted(QuotaApplication)` in a service class; workers get the application itself.

    Each commit prompts the followers of this service's log.
    """

    prompt = Prompt()

    def __init__(self, factory: Callable[[Settings], RoomApplication]) -> None:
        self.factory = factory
        self.application: RoomApplication | None = None

    def setup(self) -> None:
        application = self.application = self.factory(self.container.config["tokengrid"])
        application.on_commit = self.prompt.send

    def get_dependency(self, worker_ctx: Any) -> Any:  # noqa: ARG002
        return self.application

    def stop(self) -> None:
        if self.application is not None:
            self.application.close()
