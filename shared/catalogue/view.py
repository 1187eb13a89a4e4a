"""The catalogue as folded from its events: what is in force at an instant, as known at an instant.

Pure and bitemporal: `at` is when a price must hold, `known_at` is what had been recorded by then
(None: all we know now). The same question gets the same answer for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, TypeVar

from shared.clock import SHANGHAI
from shared.contracts import catalog as c
from shared.contracts.base import Event, Rates, Usage
from shared.errors import NoRateInForce, UnknownDeployment, UnknownModel, UnknownOperator, UnknownPlan

T = TypeVar("T")
FOREVER = datetime.max.replace(tzinfo=UTC)


class Version(NamedTuple, Generic[T]):
    """One published version of an item."""

    number: int
    effective_from: datetime
    recorded_at: datetime
    item: T


class Price(NamedTuple):
    """What a call to a model is priced by, in force from `since` until before `until`. `reference`: the rate card's."""

    model: c.Model
    reference: str
    card: c.RateCard
    since: datetime
    until: datetime


class CatalogueView:
    """Everything published, by kind and key. `position`: how far the catalog's log is folded."""

    def __init__(self) -> None:
        self.position = 0
        self._kinds: dict[str, dict[str, list[Version[Any]]]] = {}
        self._prices: dict[tuple[str, str], Price] = {}  # the last ones asked for, by operator and model

    def apply(self, position: int, event: Event) -> None:
        """Fold one event of the catalog's log."""
        self.position = position
        if isinstance(event, c.PricesImported) or not isinstance(event, c.CatalogEvent):
            return
        self._prices.clear()
        item: Any = event.item  # type: ignore[attr-defined]
        versions = self._kinds.setdefault(type(item).__name__, {}).setdefault(item.key, [])
        versions.append(Version(event.version, event.effective_from, event.recorded_at, item))
        versions.sort(key=lambda v: (v.effective_from, v.number))

    def copy(self) -> CatalogueView:
        """The same view apart: events that are applied to one are not in the other."""
        made = CatalogueView()
        made.position = self.position
        made._kinds = {
            kind: {key: list(versions) for key, versions in items.items()} for kind, items in self._kinds.items()
        }
        return made

    # -- questions about one item ---------------------------------------------------------------
    def in_force(self, kind: type[T], key: str, at: datetime, known_at: datetime | None = None) -> Version[T] | None:
        """The version of an item that holds at `at`; of two with the same start, the later published."""
        versions: Sequence[Version[T]] = self._kinds.get(kind.__name__, {}).get(key, ())
        # From the newest: what is asked for is nearly always the last or the one before it.
        for version in reversed(versions):
            if version.effective_from <= at and (known_at is None or version.recorded_at <= known_at):
                return version
        return None

    def versions(self, kind: type[T], key: str) -> tuple[Version[T], ...]:
        """All versions of an item, by the instant they take effect."""
        return tuple(self._kinds.get(kind.__name__, {}).get(key, ()))

    def items(self, kind: type[T], at: datetime, known_at: datetime | None = None) -> Iterator[Version[T]]:
        """What is in force of a kind, by key."""
        for key in sorted(self._kinds.get(kind.__name__, {})):
            version = self.in_force(kind, key, at, known_at)
            if version is not None:
                yield version

    def known(self, kind: type[Any], key: str) -> bool:
        """Whether such an item was ever published."""
        return key in self._kinds.get(kind.__name__, {})

    # -- questions in the words of the market ------------------------------------------------------
    def operator(self, operator: str, at: datetime) -> c.Operator:
        """Raises UnknownOperator."""
        found = self.in_force(c.Operator, operator, at)
        if found is None:
            raise UnknownOperator(f"no operator {operator!r}", {"operator": operator})
        return found.item

    def model(self, model: str, at: datetime, *, retired_too: bool = False) -> c.Model:
        """Raises UnknownModel; a retired model is unknown to new calls, not to those it served."""
        found = self.in_force(c.Model, model, at)
        if found is None or (found.item.status == "retired" and not retired_too):
            raise UnknownModel(f"no model {model!r}", {"model": model})
        return found.item

    def rate_card(
        self, operator: str, model: str, at: datetime, known_at: datetime | None = None
    ) -> tuple[str, c.RateCard]:
        """The rate card in force and its reference, `operator/model@version`. Raises NoRateInForce."""
        found = self.in_force(c.RateCard, f"{operator}/{model}", at, known_at)
        if found is None:
            raise NoRateInForce(
                f"{operator} has no rate in force for {model}",
                {"operator": operator, "model": model, "at": at.isoformat()},
            )
        return f"{operator}/{model}@{found.number}", found.item

    def price(self, operator: str, model: str, at: datetime) -> Price:
        """What `operator` prices a new call to `model` by. Raises UnknownModel, NoRateInForce.

        As `model` and `rate_card` say it; remembered, because every call asks for it.
        """
        last = self._prices.get((operator, model))
        if last is not None and last.since <= at < last.until:
            return last
        found, (reference, card) = self.model(model, at), self.rate_card(operator, model, at)
        starts = [version.effective_from for version in self.versions(c.Model, model)]
        starts += [version.effective_from for version in self.versions(c.RateCard, f"{operator}/{model}")]
        since = max(start for start in starts if start <= at)
        until = min((start for start in starts if start > at), default=FOREVER)
        self._prices[(operator, model)] = made = Price(found, reference, card, since, until)
        return made

    def rate_card_of(self, reference: str) -> c.RateCard:
        """The very rate card a reservation or debit names. Raises NoRateInForce."""
        key, _, number = reference.rpartition("@")
        versions: Sequence[Version[c.RateCard]] = self._kinds.get(c.RateCard.__name__, {}).get(key, ())
        for version in reversed(versions):
            if str(version.number) == number:
                return version.item
        raise NoRateInForce(f"no rate card {reference!r}", {"rate_card": reference})

    def plan(self, operator: str, plan: str, at: datetime) -> Version[c.Plan]:
        """Raises UnknownPlan."""
        found = self.in_force(c.Plan, f"{operator}/{plan}", at)
        if found is None:
            raise UnknownPlan(f"{operator} has no plan {plan!r}", {"operator": operator, "plan": plan})
        return found

    def plan_version(self, operator: str, plan: str, number: int) -> c.Plan:
        """The very version of a plan that a grant names. Raises UnknownPlan."""
        for version in self.versions(c.Plan, f"{operator}/{plan}"):
            if version.number == number:
                return version.item
        raise UnknownPlan(f"{operator} has no plan {plan!r} version {number}", {"operator": operator, "plan": plan})

    def deployment(self, deployment: str, at: datetime) -> c.Deployment:
        """Raises UnknownDeployment."""
        found = self.in_force(c.Deployment, deployment, at)
        if found is None:
            raise UnknownDeployment(f"no deployment {deployment!r}", {"deployment": deployment})
        return found.item

    def deployments_of(self, model: str, at: datetime) -> list[c.Deployment]:
        """Where a model runs, by name."""
        return [v.item for v in self.items(c.Deployment, at) if v.item.model == model]

    def tariff(
        self, home: str, serving: str, model: str, at: datetime, known_at: datetime | None = None
    ) -> tuple[str, c.Tariff] | None:
        """The wholesale tariff in force and its reference: the model's own, else the pair's for `*`."""
        for key in (f"{home}/{serving}/{model}", f"{home}/{serving}/*"):
            found = self.in_force(c.Tariff, key, at, known_at)
            if found is not None:
                return f"{key}@{found.number}", found.item
        return None


def applicable_rates(card: c.RateCard, usage: Usage, at: datetime, given: int = 0) -> Rates:
    """The rates for a call of this usage at this instant, or for a part of it behind `given` tokens of input.

    The highest tier whose threshold the call's input exceeds holds for every token of the call (a cliff), as far as
    its input is known when a part is charged; below all thresholds the off-peak rates of the minute hold, else the
    card's own.
    """
    if card.tiers:
        given += usage.given
        over = [tier for tier in card.tiers if given > tier.above_input_tokens]
        if over:
            return max(over, key=lambda tier: tier.above_input_tokens).rates
    if card.off_peak:
        local = at.astimezone(SHANGHAI)
        minute = local.hour * 60 + local.minute
        for part in card.off_peak:
            if part.covers(minute):
                return part.rates
    return card.rates
