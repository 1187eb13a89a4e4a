"""The catalogue as the auditor knows it: rate cards, plans, tariffs and model families, from raw events. Pure.

Written from the contract: a version holds from `effective_from`; of two with the same start, the later
published holds; nothing is known before it was recorded.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from services.audit.replay.calendar import instant, minute_of_day

CLASSES = ("input", "cached_input", "cache_write", "output")
FOLLOWING_S = 60  # how far a decision may be behind the catalog before its price counts as outdated

Raw = dict[str, Any]
Rates = tuple[int, int, int, int]


class Version(NamedTuple):
    """One published version of an item."""

    effective_from: datetime
    number: int
    recorded_at: datetime
    position: int
    item: Raw


def rates_of(raw: Raw) -> Rates:
    """Rates or tokens by class, absent ones being zero."""
    return (raw.get("input", 0), raw.get("cached_input", 0), raw.get("cache_write", 0), raw.get("output", 0))


class Card:
    """A rate card, ready to be applied."""

    __slots__ = ("base", "key", "off_peak", "tiers", "version")

    def __init__(self, key: str, version: Version) -> None:
        item = version.item
        self.key = key
        self.version = version
        self.base = rates_of(item["rates"])
        if any(type(rate) is not int for rate in self.base):
            raise TypeError(f"{item['rates']!r:.100} are no rates")
        self.tiers = sorted(
            ((t["above_input_tokens"], rates_of(t["rates"])) for t in item.get("tiers", ())), reverse=True
        )
        self.off_peak = [(o["from_minute"], o["to_minute"], rates_of(o["rates"])) for o in item.get("off_peak", ())]

    def rates(self, usage: Rates, at: datetime, given: int = 0) -> Rates:
        """The rates for a call, or for a part of it behind `given` tokens of input: the highest tier its input exceeds,
        else those of the time of day, else the card's."""
        if self.tiers:
            given += usage[0] + usage[1] + usage[2]
            for above, rates in self.tiers:
                if given > above:
                    return rates
        if self.off_peak:
            minute = minute_of_day(at)
            for begin, end, rates in self.off_peak:
                if (begin <= minute < end) if begin <= end else (minute >= begin or minute < end):
                    return rates
        return self.base


class Prices:
    """Everything priced that was published."""

    def __init__(self) -> None:
        self._versions: dict[tuple[str, str], list[Version]] = {}
        self._cards: dict[str, Card] = {}
        self._apply = {
            "catalog.RateCardPublished:1": ("rate card", ("operator", "model")),
            "catalog.PlanPublished:1": ("plan", ("operator", "plan")),
            "catalog.TariffPublished:1": ("tariff", ("home", "serving", "model")),
            "catalog.ModelPublished:1": ("model", ("model",)),
        }

    def apply(self, position: int, stream: str, topic: str, event: Raw) -> None:  # noqa: ARG002
        """Fold one event of the catalog's log."""
        kind, fields = self._apply.get(topic, ("", ()))
        if not kind:
            return
        item = event["item"]
        key = "/".join(item[field] for field in fields)
        version = Version(
            instant(event["effective_from"]), event["version"], instant(event["recorded_at"]), position, item
        )
        if kind == "rate card":
            self._cards[f"{key}@{version.number}"] = Card(key, version)
        versions = self._versions.setdefault((kind, key), [])
        versions.append(version)
        versions.sort(key=lambda v: v[:2])

    def card(self, reference: str) -> Card | None:
        """The very rate card that a reference names."""
        return self._cards.get(reference)

    def outdated(self, card: Card, at: datetime, recorded_at: datetime) -> Version | None:
        """The version that should have been used at `at` instead, known long enough when it was recorded."""
        known = recorded_at - timedelta(seconds=FOLLOWING_S)
        for version in reversed(self._versions["rate card", card.key]):
            if version.effective_from <= at and (version is card.version or version.recorded_at <= known):
                return None if version is card.version else version
        return card.version  # not yet in force at all

    def versions_of_card(self, card: Card) -> int:
        return len(self._versions["rate card", card.key])

    def in_force(
        self, kind: str, key: str, at: datetime, position: int | None = None, known_at: datetime | None = None
    ) -> Version | None:
        """The version of an item that holds at `at`, as known at a catalog position or an instant."""
        for version in reversed(self._versions.get((kind, key), ())):
            known = (position is None or version.position <= position) and (
                known_at is None or version.recorded_at <= known_at
            )
            if known and version.effective_from <= at:
                return version
        return None

    def plans_known(self, key: str, at: datetime, recorded_at: datetime) -> list[Version]:
        """The versions of a plan that may have been taken to hold at `at` when something was recorded, latest first:
        more than one where the latest had been published less than a minute before."""
        lag = timedelta(seconds=FOLLOWING_S)
        found: list[Version] = []
        for version in reversed(self._versions.get(("plan", key), ())):
            if version.effective_from <= at and version.recorded_at <= recorded_at + lag:
                found.append(version)
                if version.recorded_at <= recorded_at - lag:
                    break
        return found

    def plan_version(self, operator: str, plan: str, number: int, position: int) -> Raw | None:
        """The very version of a plan that a grant names, if it was known at a catalog position."""
        for version in self._versions.get(("plan", f"{operator}/{plan}"), ()):
            if version.number == number and version.position <= position:
                return version.item
        return None

    def tariff(self, home: str, serving: str, model: str, at: datetime, known_at: datetime) -> tuple[str, Raw] | None:
        """The wholesale tariff in force and its reference: the model's own, else the pair's for `*`."""
        for key in (f"{home}/{serving}/{model}", f"{home}/{serving}/*"):
            found = self.in_force("tariff", key, at, known_at=known_at)
            if found is not None:
                return f"{key}@{found.number}", found.item
        return None

    def family(self, model: str, at: datetime) -> str:
        """A model's family; empty when it is unknown."""
        found = self.in_force("model", model, at)
        return str(found.item["family"]) if found else ""
