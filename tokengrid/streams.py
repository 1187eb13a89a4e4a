"""`python -m tokengrid.serve streams`: copies every service's log into RabbitMQ's streams until SIGTERM or SIGINT.

A process of its own, since pika blocks. It keeps nothing: how far it has come stands in the streams.
"""

import shared.messaging.patch  # isort: skip  # noqa: F401 - before anything else that does I/O

import logging
import signal
import sys
import time

from services.audit.copying import Copier
from shared import telemetry
from shared.config import Settings
from shared.errors import AuditFailed, SetupFailed, TokengridError
from shared.messaging.client import Client
from shared.messaging.streams import connected

ROUND_S = 0.5  # between two looks at the logs' heads
PAUSE_FIRST_S, PAUSE_MAX_S = 0.5, 15.0  # after a failure, doubled each time
FAILED = 1
UNUSABLE = 2

_log = logging.getLogger("tokengrid.streams")


def run(settings: Settings) -> int:
    """Copy until a signal comes; returns the exit code."""
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: stopping.append(received))
    logging.basicConfig(level=settings.log_level, stream=sys.stderr)
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # what it would say is in our one sentence
    telemetry.configure(settings, "streams")
    pause_s = PAUSE_FIRST_S
    try:
        while not stopping:
            try:
                with connected(settings.broker) as connection, Client(settings, "streams") as client:
                    copier = Copier(connection, client, settings)
                    while not stopping:
                        copied = copier.copy_round(lambda: bool(stopping))
                        pause_s = PAUSE_FIRST_S
                        if not any(copied.values()):
                            connection.sleep(ROUND_S)  # heartbeats are answered meanwhile
            except (SetupFailed, AuditFailed) as error:
                _log.error("%s", error)  # another attempt would not help
                return UNUSABLE if isinstance(error, SetupFailed) else FAILED
            except TokengridError as error:
                _log.warning("%s; again in %g s", error, pause_s)
                until = time.monotonic() + pause_s
                while not stopping and time.monotonic() < until:
                    time.sleep(min(pause_s, 0.2))
                pause_s = min(pause_s * 2, PAUSE_MAX_S)
    finally:
        telemetry.shutdown()
    return 0
