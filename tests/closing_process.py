"""Processes that close June on the billing database in a folder, and tell each piece that is done.

`python -m tests.closing_process` reads lines `FOLDER HEAD` and makes a process of each, in turn, cut off at HEAD unless
the bills that are there say otherwise. It is forked from one that has everything loaded, which takes a
process of its own two seconds.
"""

import shared.messaging.patch  # isort: skip  # noqa: F401 - before anything else that does I/O

import os
import sys
import traceback
from pathlib import Path
from typing import Any

from tests.local_billing import LocalBilling
from tests.unit.billing_world import JUNE, billing
from tokengrid import closing
from tokengrid.screen import Screen, console_for


def tell(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


class Telling(LocalBilling):
    """It tells each piece that billing has done."""

    def call(self, service: str, method: str, **fields: Any) -> Any:
        answer = super().call(service, method, **fields)
        if method in ("issue_bills", "settle_period"):
            tell(method, answer["remaining"])
        return answer


def close(folder: str, head: str) -> None:
    tell("began", os.getpid())
    closing.BILLS_PAGE = 20
    client: Any = Telling(billing(Path(folder)), [int(head)])
    closing.close_month(client, JUNE, Screen(console_for(json=True), quiet=True))


if __name__ == "__main__":
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            try:
                close(*line.split())
            except BaseException:  # noqa: BLE001 - whatever it is, it is told and ends this process
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        tell("ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
