"""Where the services are that a command talks to: in this process, on the data of the last demo, or up on servers.

It must not know what is asked of them.
"""

import shared.messaging.patch  # isort: skip  # noqa: F401 - before anything else that does I/O

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import eventlet.debug

from shared import telemetry
from shared.clock import Clock
from shared.config import SERVICES, Settings
from shared.errors import SetupFailed
from shared.messaging.client import Client
from shared.messaging.hosting import Hosted
from shared.messaging.runner import serving
from tokengrid import serve, up


class Against(StrEnum):
    """`demo`: the embedded services, in this process. `up`: those that `tokengrid up` has started."""

    demo = "demo"
    up = "up"


def demo_folder(var: Path) -> Path:
    """Where the embedded services of the demo keep everything."""
    return var / "demo"


def embedded_settings(folder: Path) -> Settings:
    """One process, in-process broker, SQLite in `folder`, whatever the environment says of the production shape.

    Quota has as many shards as there are databases of them in the folder, before the first start as many as the
    environment wants.
    """
    defaults = Settings.model_fields
    settings = Settings(
        broker=defaults["broker"].default,
        database=defaults["database"].default,
        var=folder,
        backdate_max_s=up.BACKDATE_MAX_S,
        sweep_interval_s=0.0,
        subscriptions_interval_s=0.0,
    )
    there = 1 if (folder / "quota.db").exists() else len(list(folder.glob("quota_[0-9]*.db")))
    return settings.model_copy(update={"quota_shards": there}) if there else settings


def hosted_with(cls: type[Any], clock: Clock) -> type:
    """The same service with another clock in its application."""
    return type(cls.__name__, (cls,), {"app": Hosted(partial(cls.app.factory, clock=clock))})


@contextmanager
def embedded(folder: Path, clock: Clock | None = None) -> Iterator[Client]:
    """A client of all services, started in this process on the databases in `folder`."""
    _log_as_asked()
    classes = [serve.load(name) for name in SERVICES]
    if clock is not None:
        classes = [hosted_with(cls, clock) for cls in classes]
    settings = embedded_settings(folder)
    with _telemetry(settings), serving(classes, settings), Client(settings, "tokengrid") as client:
        yield client


@contextmanager
def attached(var: Path) -> Iterator[Client]:
    """A client of the services that `tokengrid up` has started. SetupFailed: none were."""
    _log_as_asked()
    settings = up.client_settings(var)
    with _telemetry(settings), Client(settings, "tokengrid") as client:
        yield client


@contextmanager
def _telemetry(settings: Settings) -> Iterator[None]:
    """Traces and metrics of what this process does go where the settings say; nowhere costs nothing."""
    telemetry.configure(settings, "tokengrid")
    try:
        yield
    finally:
        telemetry.shutdown()


def _log_as_asked() -> None:
    """A person gets one sentence; the log comes on stderr if TOKENGRID_LOG_LEVEL asks for it."""
    settings = Settings()
    if "log_level" in settings.model_fields_set:
        logging.basicConfig(level=settings.log_level, stream=sys.stderr)
    else:
        logging.getLogger().addHandler(logging.NullHandler())
        eventlet.debug.hub_exceptions(False)  # what ends a service's start is raised to us as well


@contextmanager
def session(against: Against, var: Path) -> Iterator[Client]:
    """A client of the services. SetupFailed: no demo has run there, a database of it is gone, or nothing is up."""
    if against is Against.up:
        with attached(var) as client:
            yield client
        return
    folder = demo_folder(var)
    if not (folder / "catalog.db").exists():
        raise SetupFailed(f"There is no demo's data in {folder}: run `tokengrid demo` first, or add `--against up`.")
    for name in SERVICES:  # a service would begin an empty one in its place
        if not any(folder.glob(f"{name}.db")) and not (name == "quota" and any(folder.glob("quota_[0-9]*.db"))):
            raise SetupFailed(f"There is no database {folder / name}.db: run `tokengrid demo` again, or put it back.")
    with embedded(folder) as client:
        yield client
