"""The catalog as an application of the event store: publishes through the writer, answers from the view.

It knows nothing of nameko. The view in memory is a cache of the log: folded at the start, caught up
before every answer, so that replicas of one database give the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from services.catalog.answers import Row, comparison, full, row
from services.catalog.domain.compare import compare
from services.catalog.domain.kinds import BY_NAME
from services.catalog.questions import Compare, History, Imports, ListQuestion, OneModel, OnePlan, OneRateCard, Question
from services.catalog.room import CatalogueRoom
from services.catalog.schemas import LISTS
from shared.catalogue.view import CatalogueView
from shared.clock import Clock, system_clock
from shared.config import Settings
from shared.contracts import catalog as c
from shared.contracts.schema import parse
from shared.errors import LimitExceeded, MalformedCommand, UnknownModel, UnknownPlan
from shared.eventstore.application import RoomApplication
from shared.eventstore.writer import Writer

# What every list question has; its other fields choose among the items.
_NO_CHOICE = frozenset(ListQuestion.__struct_fields__)


class CatalogApplication(RoomApplication):
    """One catalog: its database, its log, its view. Arguments are mappings as decoded from JSON."""

    def __init__(self, settings: Settings, clock: Clock = system_clock) -> None:
        super().__init__("catalog", settings, clock)
        self.room = CatalogueRoom(self.log, clock, settings.future_max_s)
        self.writer: Writer[c.Publish] = self.writer_for(self.room, 0)
        self.writer.refresh()

    @property
    def view(self) -> CatalogueView:
        """All that is published by now, by whichever replica."""
        self.writer.refresh()
        return self.room.view

    def publish(self, fields: Mapping[str, Any]) -> Row:
        """Publish a catalogue or a part of one. Raises CatalogueConflict with every reason, and changes nothing."""
        return self.writer.submit(self._publication(fields))

    def check(self, fields: Mapping[str, Any]) -> Row:
        """What `publish` would do with the same arguments, every reason against it included. Changes nothing."""
        command = self._publication(fields)
        self.writer.refresh()
        return self.room.check(command)

    def _publication(self, fields: Mapping[str, Any]) -> c.Publish:
        command = parse(c.Publish, fields)
        size = sum(len(getattr(command.catalogue, kind.field)) for kind in BY_NAME.values())
        if size > self.settings.batch_max:
            raise LimitExceeded(
                f"a publication has at most {self.settings.batch_max} items", {"limit": self.settings.batch_max}
            )
        return command

    # -- questions ------------------------------------------------------------------------------------
    def listed(self, name: str, fields: Mapping[str, Any]) -> list[Row]:
        """What a list method gives: versions in force, in order of their keys."""
        struct, kind = LISTS[name]
        question = parse(struct, fields)
        self._check_limit(question.limit)
        rows: list[Row] = []
        chosen = {f: getattr(question, f) for f in struct.__struct_fields__ if f not in _NO_CHOICE}
        for version in self.view.items(BY_NAME[kind].item, self._at(question), question.known_at):
            item = version.item
            if item.key > question.after and all(v is None or getattr(item, f) == v for f, v in chosen.items()):
                rows.append(row(version))
                if len(rows) == question.limit:
                    break
        return rows

    def model(self, fields: Mapping[str, Any]) -> Row:
        """Raises UnknownModel."""
        question = parse(OneModel, fields)
        found = self.view.in_force(c.Model, question.model, self._at(question), question.known_at)
        if found is None:
            raise UnknownModel(f"no model {question.model!r}", {"model": question.model})
        return row(found)

    def rate_card(self, fields: Mapping[str, Any]) -> Row:
        """Raises UnknownOperator, UnknownModel, NoRateInForce."""
        question = parse(OneRateCard, fields)
        view, at = self.view, self._at(question)
        found = view.in_force(c.RateCard, f"{question.operator}/{question.model}", at, question.known_at)
        if found is None:
            view.operator(question.operator, at)
            view.model(question.model, at)
            view.rate_card(question.operator, question.model, at, question.known_at)
            raise AssertionError("unreachable")
        return row(found)

    def plan(self, fields: Mapping[str, Any]) -> Row:
        """Raises UnknownOperator, UnknownPlan."""
        question = parse(OnePlan, fields)
        view, at = self.view, self._at(question)
        found = view.in_force(c.Plan, f"{question.operator}/{question.plan}", at, question.known_at)
        if found is None:
            view.operator(question.operator, at)
            raise UnknownPlan(
                f"{question.operator} has no plan {question.plan!r}",
                {"operator": question.operator, "plan": question.plan},
            )
        return row(found)

    def history(self, fields: Mapping[str, Any]) -> list[Row]:
        """Every version of an item, by number; empty where there is none."""
        question = parse(History, fields)
        versions = self.view.versions(BY_NAME[question.kind].item, question.key)
        return [row(version) for version in sorted(versions, key=lambda v: v.number)]

    def compare(self, fields: Mapping[str, Any]) -> Row:
        """What differs between two instants; see `schemas.Compared`."""
        question = parse(Compare, fields)
        view = self.view
        before, after = (
            {
                (kind.name, version.item.key): version.item
                for kind in BY_NAME.values()
                for version in view.items(kind.item, at, question.known_at)
            }
            for at in (question.before, question.after)
        )
        return comparison(compare(before, after))

    def imports(self, fields: Mapping[str, Any]) -> list[Row]:
        """Price imports, oldest first: the events' fields and their positions."""
        question = parse(Imports, fields)
        self._check_limit(question.limit)
        self.writer.refresh()
        later = [(position, event) for position, event in self.room.imports if position > question.after]
        return [{"position": position, **full(event)} for position, event in later[: question.limit]]

    def _at(self, question: Question) -> datetime:
        return question.at or self.clock()

    def _check_limit(self, limit: int) -> None:
        if limit > self.settings.page_max:
            raise MalformedCommand(
                "limit is out of bounds", {"fields": {"limit": [f"must be at most {self.settings.page_max}"]}}
            )
