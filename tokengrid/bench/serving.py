"""Requests of several callers at a quota application in this process: bodies in, answer bodies out, durable.

As its service works: a thread for each caller that is waiting. Must not know what is asked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

import msgspec

from services.quota.application import QuotaApplication
from shared.eventstore.requests import Request
from tokengrid.bench.measure import first_error

CALLERS = 2  # while one's commit is on its way to the disk, the other's is being decided

Answer = bytes | Exception
Answered = Callable[[float, Answer], object]


def serve(app: QuotaApplication, bodies: Iterable[bytes], answered: Answered, callers: int = CALLERS) -> None:
    """Ask `execute` with each body, `callers` at a time; `answered` gets the seconds each took, and its answer.

    Bodies may be made on the way: taking the next one is nobody's answer time.
    """
    source = iter(bodies)
    taking = threading.Lock()
    broken: list[BaseException] = []

    def call() -> None:
        try:
            while not broken:
                with taking:
                    body = next(source, None)
                if body is None:
                    return
                began = time.perf_counter()
                (answer,) = app.serve([Request("execute", body)])
                answered(time.perf_counter() - began, answer)
        except BaseException as error:  # noqa: BLE001 - raised below, where the caller is
            broken.append(error)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]


def receipts(answer: Answer) -> int:
    """How many receipts are in it. Raises AssertionError for a refusal, of the request or of a command in it."""
    assert isinstance(answer, bytes), answer
    answers = msgspec.json.decode(answer)
    first_error(answers)
    return len(answers)
