"""`QuotaShards`: all shards of quota behind one door. Whatever is asked goes to the shard that has the account.

Nothing is shared between shards: each decides, stores and follows by itself. It must not know how. With one
shard everything is handed on as it came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.quota.application import QuotaApplication
from services.quota.schemas import Balance, Balances, Find, Statement, Sweep
from services.quota.sharding import refuse_other_shape
from shared.clock import Clock, system_clock
from shared.config import Settings
from shared.errors import LimitExceeded, MalformedCommand, TokengridError
from shared.eventstore.requests import Request
from shared.sharding import shard_of


class QuotaShards:
    """The shards of this deployment, `settings.quota_shards` of them, each a `QuotaApplication`."""

    def __init__(self, settings: Settings, clock: Clock = system_clock) -> None:
        """Raises SetupFailed when the databases are those of another number of shards."""
        refuse_other_shape(settings)
        count = settings.quota_shards
        # What a process keeps in memory is bounded over all its shards.
        share = settings.model_copy(update={"accounts_cached_max": max(1, settings.accounts_cached_max // count)})
        self.settings = settings
        opened: list[QuotaApplication] = []
        try:
            for shard in range(count):
                opened.append(QuotaApplication(share, clock, shard))
        except BaseException:
            for application in opened:
                application.close()
            raise
        self.shards: Sequence[QuotaApplication] = tuple(opened)
        self._only = opened[0] if count == 1 else None

    # -- commands -------------------------------------------------------------------------------
    def submit(self, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """One command by its method's name. Raises its refusal."""
        return self._having(fields).submit(name, fields)

    def execute(self, commands: Any) -> list[dict[str, Any]]:
        """A batch: one `{"ok"}` or `{"error"}` per command, in order. Each shard's part is one transaction.

        Where a shard cannot take its part (Unavailable, Busy), that is raised when all the others have been asked:
        repeated, the batch does what is missing, and answers the rest as before.
        """
        if self._only is not None or not isinstance(commands, list):
            return self.shards[0].execute(commands)
        if len(commands) > self.settings.batch_max:
            limit = self.settings.batch_max
            raise LimitExceeded(f"a batch has at most {limit} commands", {"limit": limit})
        places: dict[int, list[int]] = {}
        for place, command in enumerate(commands):
            places.setdefault(self._number(command), []).append(place)
        answers: list[dict[str, Any]] = [{}] * len(commands)
        failure: TokengridError | None = None
        for shard, of_shard in sorted(places.items()):
            try:
                given = self.shards[shard].execute([commands[place] for place in of_shard])
            except TokengridError as error:
                failure = failure or error
                continue
            for place, answer in zip(of_shard, given, strict=True):
                answers[place] = answer
        if failure is not None:
            raise failure
        return answers

    def serve(self, shard: int, requests: Sequence[Request]) -> list[bytes | Exception]:
        """Requests of several callers to one shard in one commit; per request the answer as JSON, or its refusal."""
        return self.shards[shard].serve(requests)

    def sweep(self, query: Sweep) -> dict[str, Any]:
        """Expire holds and grants that are due, shard by shard, until the limit is reached."""
        if self._only is not None:
            return self._only.sweep(query)
        left = min(max(query.limit, 1), self.settings.page_max)
        total = {"expired_reservations": 0, "expired_grants": 0, "remaining": False}
        for application in self.shards:
            if left <= 0:
                total["remaining"] = True
                break
            part = application.sweep(Sweep(operator=query.operator, until=query.until, limit=left))
            for kind in ("expired_reservations", "expired_grants"):
                total[kind] += part[kind]
                left -= part[kind]
            total["remaining"] |= part["remaining"]
        return total

    # -- questions ------------------------------------------------------------------------------
    def balance(self, query: Balance) -> dict[str, Any]:
        """An account's books, now or as they had been recorded at an instant."""
        return self._of(query.operator, query.account).balance(query)

    def statement(self, query: Statement) -> dict[str, Any]:
        """A page of an account's events."""
        return self._of(query.operator, query.account).statement(query)

    def find(self, query: Find) -> dict[str, Any]:
        """The event that a request made; none where there is none."""
        return self._of(query.operator, query.account).find(query)

    def balances(self, query: Balances) -> dict[str, Any]:
        """A page of one shard's accounts. Raises MalformedCommand where there is no such shard."""
        return self._at(query.shard).balances(query)

    def status(self) -> dict[str, Any]:
        """Each shard by itself, and all together: events counted over all logs, the catalogue as the last has it."""
        shards = [application.status() for application in self.shards]
        return {
            "head": sum(one["head"] for one in shards),
            "followed": {
                "catalog": min(one["followed"]["catalog"] for one in shards),
                "quota": sum(one["followed"]["quota"] for one in shards),
            },
            "accounts_cached": sum(one["accounts_cached"] for one in shards),
            "shards": [
                {"log": application.log_name, **one} for application, one in zip(self.shards, shards, strict=True)
            ],
        }

    # -- following ------------------------------------------------------------------------------
    def follow_catalog(self, page: Sequence[Mapping[str, Any]]) -> int:
        """Every shard has a copy of the catalogue; the position that all have reached."""
        return min(application.follow_catalog(page) for application in self.shards)

    def follow_quota(self, page: Sequence[Mapping[str, Any]], shard: int = 0) -> int:
        """A page of a shard's own log, for its read model."""
        return self.shards[shard].follow_quota(page)

    def close(self) -> None:
        for application in self.shards:
            application.close()

    # -- which shard ------------------------------------------------------------------------------
    def _of(self, operator: str, account: str) -> QuotaApplication:
        return self._only or self.shards[shard_of(operator, account, len(self.shards))]

    def _having(self, fields: Any) -> QuotaApplication:
        return self._only or self.shards[self._number(fields)]

    def _number(self, fields: Any) -> int:
        """The shard of a command as it came. One that names no account is any shard's to refuse."""
        if not isinstance(fields, Mapping):
            return 0
        operator, account = fields.get("operator"), fields.get("account")
        if not (isinstance(operator, str) and isinstance(account, str)):
            return 0
        try:
            return shard_of(operator, account, len(self.shards))
        except UnicodeEncodeError:
            return 0

    def _at(self, shard: int) -> QuotaApplication:
        if not 0 <= shard < len(self.shards):
            complaint = f"Must be from 0 to {len(self.shards) - 1}."
            raise MalformedCommand("There is no such shard.", {"fields": {"shard": [complaint]}})
        return self.shards[shard]
