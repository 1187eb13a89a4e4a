"""`python -m tokengrid.serve NAME…`: runs services in this process until SIGTERM or SIGINT.

A service's code is imported only when it is named, so an image may hold one alone. Knows where the
services' classes are, and nothing of what they do.
"""

import shared.messaging.patch  # isort: skip  # noqa: F401 - before anything else that does I/O

import importlib
import sys
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from shared.config import Settings
from shared.errors import SetupFailed
from shared.messaging.runner import serve_forever

CLASSES: Mapping[str, str] = {
    "catalog": "services.catalog.service:CatalogService",
    "quota": "services.quota.service:QuotaService",
    "routing": "services.routing.service:RoutingService",
    "billing": "services.billing.service:BillingService",
    "audit": "services.audit.service:AuditService",
}
STREAMS = "streams"  # no service: it copies their logs, and is a process of its own
UNUSABLE = 2  # exit code: what was asked for makes no sense, and trying again will not help


def load(name: str, classes: Mapping[str, str] = CLASSES) -> type:
    """The class of a service. SetupFailed: no such service, or it is not part of this installation."""
    if name not in classes:
        raise SetupFailed(f"There is no service {name!r}: name some of {', '.join(classes)}.")
    module, _, attribute = classes[name].partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise  # the service is here; something it needs is not
        raise SetupFailed(
            f"The service {name!r} is not part of this installation: install it, or name another."
        ) from error
    assert isinstance(found, type)
    return found


def main(names: Sequence[str], classes: Mapping[str, str] = CLASSES) -> int:
    """Run the named services; returns the exit code."""
    try:
        if not names:
            raise SetupFailed(f"Name the services to run: some of {', '.join(classes)}; or {STREAMS} alone.")
        if STREAMS in names and STREAMS not in classes:
            return _copy(names)
        found = [load(name, classes) for name in dict.fromkeys(names)]
        settings = Settings()
    except SetupFailed as error:
        sys.stderr.write(f"{error}\n")
        return UNUSABLE
    except ValidationError as error:
        wrong = "; ".join(f"TOKENGRID_{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        sys.stderr.write(f"Correct the configuration: {wrong}\n")
        return UNUSABLE
    return serve_forever(found, settings)


def _copy(names: Sequence[str]) -> int:
    if set(names) != {STREAMS}:
        raise SetupFailed(f"{STREAMS} blocks while it writes: give it a process of its own.")
    from tokengrid import streams

    return streams.run(Settings())


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
