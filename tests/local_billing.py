"""Billing in this process, called as a client calls it, beside the heads of quota's logs: for whoever closes months."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.billing.application import BillingApplication
from services.billing.schemas import METHODS
from shared.contracts.base import COMMANDS
from shared.contracts.schema import parse
from shared.errors import TokengridError
from shared.messaging import codec

ASKS = {method.name: method.takes for method in METHODS}


class LocalBilling:
    """`call` as that of a `Client`. `heads`: of quota's logs, by shard, as quota would tell."""

    def __init__(self, app: BillingApplication, heads: Sequence[int]) -> None:
        self.app = app
        self.heads = list(heads)
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def call(self, service: str, method: str, *, deadline_s: float = 0, retries: int = 0, **fields: Any) -> Any:
        fields = codec.decode(codec.encode(fields))
        if service == "quota":
            assert method == "status"
            return {"shards": [{"log": f"quota-{shard}", "head": head} for shard, head in enumerate(self.heads)]}
        self.calls.append((method, fields))
        while True:
            try:
                return codec.decode(codec.encode(self._answer(method, fields)))
            except TokengridError as error:
                if not error.retryable or not retries:
                    raise
                retries -= 1

    def _answer(self, method: str, fields: dict[str, Any]) -> Any:
        takes = ASKS[method]
        if takes is None:
            return getattr(self.app, method)()
        if method in COMMANDS["billing"] and method != "dry_run":
            return self.app.submit(method, fields)
        return getattr(self.app, method)(parse(takes, fields))
