"""`every`: work that a service does by itself, at the interval that a setting gives; zero turns it off."""

from __future__ import annotations

from typing import Any

from eventsourcing.persistence import PersistenceError
from nameko.timer import Timer
from sqlalchemy.exc import SQLAlchemyError

from shared.errors import TokengridError

# A database that is away, another replica that was faster: the next round makes it good.
HEALING = (TokengridError, PersistenceError, SQLAlchemyError)


class SettingTimer(Timer):  # type: ignore[misc]
    """nameko's timer at the interval that the settings give, in seconds."""

    def __init__(self, setting: str, **kwargs: Any) -> None:
        self.setting = setting
        super().__init__(0, expected_exceptions=HEALING, **kwargs)

    def setup(self) -> None:
        self.interval = getattr(self.container.config["tokengrid"], self.setting)

    def start(self) -> None:
        if self.interval > 0:
            super().start()

    def stop(self) -> None:
        if self.gt is not None:
            super().stop()

    def kill(self) -> None:
        if self.gt is not None:
            super().kill()


every = SettingTimer.decorator
