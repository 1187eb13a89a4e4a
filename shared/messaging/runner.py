"""Running services: `serving` within this process, `serve_forever` as a process of its own.

`shared.messaging.patch` must have been imported first. It must know nothing of the services it runs.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import eventlet
from nameko.containers import ServiceContainer
from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from shared import collector, telemetry
from shared.config import Settings
from shared.errors import SetupFailed
from shared.messaging.link import BROKER_ERRORS, connection_to, redacted

log = logging.getLogger(__name__)

# A broker that starts at the same time as we do needs some seconds; one that is down needs a person.
BROKER_WAIT_S = 30.0
# Beyond the longest call: what has not stopped by then never will.
STOP_MARGIN_S = 5.0
TICK_S = 0.25


def await_broker(settings: Settings, wait_s: float = BROKER_WAIT_S) -> None:
    """Returns when the broker accepts us. Raises SetupFailed after `wait_s` seconds."""
    try:
        for attempt in Retrying(
            stop=stop_after_delay(wait_s),
            wait=wait_exponential(multiplier=0.1, max=2.0),
            retry=retry_if_exception_type(BROKER_ERRORS),
            sleep=eventlet.sleep,
        ):
            with attempt, connection_to(settings) as connection:
                connection.connect()
    except RetryError as exc:
        cause = exc.last_attempt.exception()
        raise SetupFailed(
            f"The broker at {redacted(settings.broker)} cannot be reached: {cause}. "
            "Start it, or correct TOKENGRID_BROKER."
        ) from cause


class Runner:
    """Starts services in the order given and stops them in the reverse one, callers before the called."""

    def __init__(self, service_classes: Sequence[type], settings: Settings) -> None:
        self.settings = settings
        self.containers = [ServiceContainer(cls, settings.nameko()) for cls in service_classes]
        self.failure: BaseException | None = None
        self._started: list[Any] = []

    def start(self) -> None:
        """Returns when every service answers. Raises what kept one from starting, with the others stopped."""
        for container in self.containers:
            self._started.append(container)
            eventlet.spawn(self._watch, container)
            try:
                container.start()
            except BaseException as exc:  # noqa: BLE001 - raised again below, when the others are stopped
                self.failure = exc
            if container._being_killed:  # an extension failed while starting; nameko tells only by dying
                self.failure = self.failure or _death_of(container)
            if self.failure is not None:
                self.kill()
                raise self.failure

    def _watch(self, container: Any) -> None:
        try:
            container.wait()
        except BaseException as exc:  # noqa: BLE001 - it is passed on to whoever runs us
            self.failure = self.failure or exc

    def stop(self, bound_s: float | None = None) -> bool:
        """Let every service finish what it has in hand; kill what is not done in `bound_s` seconds.
        Returns whether all were done."""
        bound_s = self.settings.deadline_s + STOP_MARGIN_S if bound_s is None else bound_s
        with eventlet.Timeout(bound_s, False):
            while self._started:
                self._started[-1].stop()
                self._started.pop()
            return True
        log.error("not everything in hand was finished within %g s", bound_s)
        self.kill()
        return False

    def kill(self) -> None:
        """Stop at once; what was in hand is delivered again to whoever comes next."""
        while self._started:
            self._started.pop().kill()


def _death_of(container: Any) -> BaseException:
    try:
        container.wait()
    except BaseException as exc:  # noqa: BLE001 - it is passed on
        return exc
    return SetupFailed(f"{container.service_name} ended while starting.")


@contextmanager
def serving(service_classes: Sequence[type], settings: Settings) -> Iterator[Runner]:
    """The services, answering, for the length of a block. Raises SetupFailed if the broker is away, and
    at the end what killed a service in between, if anything did."""
    await_broker(settings)
    runner = Runner(service_classes, settings)
    runner.start()
    try:
        yield runner
    finally:
        runner.stop()
    if runner.failure is not None:
        raise runner.failure


def serve_forever(service_classes: Sequence[type], settings: Settings, broker_wait_s: float = BROKER_WAIT_S) -> int:
    """Run the services until SIGTERM or SIGINT, or until one of them dies. Returns the exit code.

    The first signal lets them finish what they have in hand, within the longest call's deadline; a second
    one ends them at once. 0: stopped as asked; 1: could not start, died, or had to be killed.
    """
    logging.basicConfig(
        level=settings.log_level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("amqp").setLevel(logging.ERROR)  # a late confirm at closing is no news
    names = "-".join(cls.name for cls in service_classes)  # type: ignore[attr-defined]
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        # The handler runs between any two instructions: it may note the signal, and no more.
        signal.signal(number, lambda received, _frame: signals.append(received))
    telemetry.configure(settings, names)
    try:
        try:
            await_broker(settings, broker_wait_s)
            runner = Runner(service_classes, settings)
            runner.start()
            collector.suit_batches()
        except SetupFailed as exc:
            print(f"{names}: {exc}", file=sys.stderr)  # noqa: T201 - one sentence for the person who started it
            return 1
        while not signals and runner.failure is None:
            eventlet.sleep(TICK_S)
        if runner.failure is not None:
            log.critical("%s: a service died: %r", names, runner.failure)
            runner.kill()
            return 1
        stopping = eventlet.spawn(runner.stop)
        while not stopping.dead and len(signals) < 2:
            eventlet.sleep(TICK_S)
        if not stopping.dead:
            runner.kill()
            return 1
        return 0 if stopping.wait() else 1
    finally:
        telemetry.shutdown()
