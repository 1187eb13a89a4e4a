"""The demo's main job: a month from the price list to the audited bills, on services that really run.

It must not know how the services decide, nor how what comes of it is shown.
"""

import shared.messaging.patch  # isort: skip  # noqa: F401 - before anything else that does I/O

import fcntl
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from services.audit.replay import AuditReport, run_audit
from services.audit.report import render_html
from services.catalog.sample import sample_publication
from shared.clock import EARLIEST, FrozenClock, period_bounds, system_clock
from shared.config import SERVICES
from shared.contracts import quota as q
from shared.contracts.base import Command
from shared.contracts.billing import BillIssued
from shared.errors import SetupFailed, TokengridError
from shared.messaging.client import Client
from tokengrid import closing
from tokengrid.demo.books import DebitsDigest, bills_digest, most_interesting, read_books
from tokengrid.demo.figures import Figures, billed, rss_mb_max
from tokengrid.demo.gateway import Gateway, Sweeper, execute
from tokengrid.demo.market import log_of, read_catalogue, shops
from tokengrid.demo.subscribers import Subscriber, subscribers
from tokengrid.demo.traffic import Traffic
from tokengrid.following import RETRIES, await_followed, heads
from tokengrid.screen import Screen
from tokengrid.session import Against, attached, demo_folder, embedded
from tokengrid.traces import BrokenLine, Call, Reader, generate, read

PERIOD = "2026-06"
CALLS = 20_000
ACCOUNTS = 1_000
# A trace from a file keeps its own tempo; its first call comes in the middle of the month, on a morning.
FILE_START = timedelta(days=14, hours=9)
CLOSING = timedelta(hours=2)  # bills are made in the night after the month
OPENING_BATCH = 500
DIFFERENCES_MAX = 20  # in the report; the audit's page has more
MARKER = ".tokengrid-demo"


class Options(NamedTuple):
    """What is asked for. `calls` None: a file's all, else CALLS."""

    var: Path
    seed: int = 1
    calls: int | None = None
    accounts: int = ACCOUNTS
    trace: Path | None = None
    against: Against = Against.demo
    period: str = PERIOD


class Outcome(NamedTuple):
    """The report, as it is written, who owes whom, the files, and the account (operator, name) to look at."""

    report: dict[str, Any]
    agrees: bool
    settlement: dict[str, Any]
    files: dict[str, Path]
    shown: tuple[str, str]


def run(options: Options, screen: Screen) -> Outcome:
    """The whole story. Raises UnreadableTrace, SetupFailed or another TokengridError, each in one sentence."""
    began = monotonic()
    source = read(options.trace) if options.trace is not None else None
    start, end = period_bounds(options.period)
    if end > system_clock():
        raise SetupFailed(f"The month {options.period} has not ended yet: choose an earlier one with --month.")
    if start < EARLIEST:  # told before what the last demo left is cleared away
        raise SetupFailed(f"The month {options.period} is too long ago: choose a later one with --month.")
    with _services(options, start) as (client, folder, clock):
        chapters = _Chapters(options, screen, client, clock, start, end)
        chapters.publish()
        people = chapters.open_accounts()
        calls = _calls(options, source)
        offset = FILE_START if source is not None else timedelta()
        figures = chapters.replay(people, calls, start + offset)
        cut_offs = chapters.close()
        accounts = {(one.operator, one.account) for one in people}
        books = read_books(client, accounts, options.period)
        digest, events = chapters.read_logs(accounts)
        audited = chapters.audit()
        replay_s = next(stage.seconds for stage in screen.stages if stage.title == REPLAY)
        report = {
            **figures.as_dict(),
            **chapters.counts(),
            "accounts": len(people),
            **billed([issued.bill for issued in books.bills.values()]),
            "statements": len(books.statements),
            "events": sum(events.values()),
            "events_by_log": events,
            **_verdict(audited),
            "debits": digest.count,
            "debits_sha256": digest.hexdigest(),
            "bills_sha256": bills_digest(books.bills),
            "quota_positions": cut_offs,
            **_source(options, source),
        }
        chosen = most_interesting(books.bills.values())
        settlement = client.call("billing", "settlement", period=options.period, retries=RETRIES)
        files = _write(folder, client, settlement, chosen)
        report |= {
            "wall_s": round(monotonic() - began, 2),
            "calls_per_s": round(figures.calls / replay_s) if replay_s else 0,
            "rates_per_s": {stage.title: stage.per_second for stage in screen.stages},
            "rss_mb_max": rss_mb_max(),
        }
        files["audit"] = folder / "audit.html"
        files["audit"].write_text(render_html(audited), encoding="utf-8", errors="replace")
        files["report"] = folder / "report.json"
        files["report"].write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return Outcome(report, audited.ok, settlement, files, (chosen.bill.operator, chosen.bill.account))


REPLAY = "replaying the calls"


class _Chapters:
    """The steps of the story, in order."""

    def __init__(
        self,
        options: Options,
        screen: Screen,
        client: Client,
        clock: FrozenClock | None,
        start: datetime,
        end: datetime,
    ) -> None:
        self.options, self.screen, self.client, self.clock = options, screen, client, clock
        self.start, self.end = start, end
        # Servers keep what other runs have left; there, this run's accounts and calls have names of their own.
        self.run_id = "" if clock is not None else f"{system_clock():%y%m%dT%H%M%S}-"
        self.sweeper = Sweeper(client)
        self.gateway = Gateway(client, self.sweeper, self._time)
        self.beyond = 0

    def _time(self, at: datetime) -> None:
        """The services' clock follows the demo's month; that of services elsewhere is their own."""
        if self.clock is not None and at > self.clock.now:
            self.clock.now = at

    def publish(self) -> None:
        with self.screen.stage("publishing the catalogue", "items") as tick:
            answer = self.client.call("catalog", "publish", retries=RETRIES, **sample_publication(self.start))
            tick(answer["published"] + answer["skipped"])
            for service in ("quota", "routing", "billing"):
                await_followed(self.client, service, "catalog")

    def open_accounts(self) -> list[Subscriber]:
        options = self.options
        view = read_catalogue(self.client)
        people = subscribers(shops(view, self.start), options.accounts, options.seed, self.start, self.end, self.run_id)
        with self.screen.stage("opening the accounts", "accounts", len(people)) as tick:
            for first in range(0, len(people), OPENING_BATCH):
                batch = people[first : first + OPENING_BATCH]
                commands: list[Command] = [command for one in batch for command in one.opening]
                self._carry_out("quota", commands)
                tick(first + len(batch))
        self._subscribe(people)
        return people

    def _subscribe(self, people: list[Subscriber]) -> None:
        """Who takes a plan takes it from billing, which has its points granted by quota."""
        taken: list[Command] = [one.subscribe for one in people if one.subscribe is not None]
        with self.screen.stage("taking the plans", "plans", len(taken)) as tick:
            await_followed(self.client, "billing", "quota")
            self._carry_out("billing", taken)
            ordered = 0
            while any((done := self.client.call("billing", "renew", retries=RETRIES)).values()):
                ordered += done["ordered"]
                tick(min(ordered, len(taken)))
            tick(len(taken))

    def _carry_out(self, service: str, commands: list[Command]) -> None:
        for command, answer in zip(commands, execute(self.client, service, commands), strict=True):
            if "error" in answer:
                raise _refused(service, command, answer["error"], self.options.against)

    def replay(self, people: list[Subscriber], calls: Iterable[Call], start: datetime) -> Figures:
        figures = Figures()
        traffic = Traffic(people, self.options.seed, start, self.end, self.run_id)
        total = self.options.calls or (CALLS if self.options.trace is None else None)
        with self.screen.stage(REPLAY, "calls", total) as tick:

            def ended(call: Any, end: Any) -> None:
                figures.ended(call, end)
                tick(figures.calls)

            self.gateway.replay(traffic.plan(calls, self.options.calls), ended)
        self.beyond = traffic.beyond
        return figures

    def close(self) -> list[int]:
        """Expire, bill, settle; the cut-offs: positions of quota's logs, by shard."""
        self._time(self.end + CLOSING)
        with self.screen.stage("expiring holds and points", "things") as tick:
            self.sweeper.sweep(self.end)
            tick(self.sweeper.expired.total())
        operators = [shop.operator for shop in shops(read_catalogue(self.client), self.start)]
        closed = closing.close_month(self.client, self.options.period, self.screen, operators, new_cut_offs=True)
        for refusal in closed.refusals.values():
            raise refusal
        return closed.cut_offs

    def read_logs(self, accounts: set[tuple[str, str]]) -> tuple[DebitsDigest, dict[str, int]]:
        """The hash of this run's debits, and how many events each log has."""
        digest = DebitsDigest()
        streams = {f"{operator}/{account}" for operator, account in accounts}
        with self.screen.stage("reading the log", "events") as tick:
            logs = (log_of(self.client, "quota", shard) for shard in range(len(heads(self.client, "quota"))))
            for count, logged in enumerate(chain.from_iterable(logs), start=1):
                if logged.topic == q.TokensDebited.TOPIC and logged.stream in streams:
                    event = logged.event
                    assert isinstance(event, q.TokensDebited), "the topic says so"
                    digest.add(logged.stream, event)
                tick(count)
        return digest, {log: head for service in SERVICES for log, head in heads(self.client, service).items()}

    def audit(self) -> AuditReport:
        """Independent arithmetic over all logs, compared with what the services answer."""
        read: Counter[str] = Counter()
        with self.screen.stage("auditing", "events") as tick:

            def progress(log: str, done: int, _total: int) -> None:
                read[log] = done
                tick(read.total())

            return run_audit(self.client, self.options.period, progress)

    def counts(self) -> dict[str, Any]:
        gateway = self.gateway
        return {
            "expired_reservations": self.sweeper.expired["expired_reservations"],
            "expired_grants": self.sweeper.expired["expired_grants"],
            "refusals": dict(sorted(gateway.refusals.items())),
            "commands": dict(sorted(gateway.commands.items())),
            "beyond_the_month": self.beyond,
        }


@contextmanager
def _services(options: Options, start: datetime) -> Iterator[tuple[Client, Path, FrozenClock | None]]:
    """A client, the folder for what is written, and the clock of the services if it is ours."""
    folder = demo_folder(options.var)
    with ExitStack() as open_until_end:
        if options.against is Against.up:
            client = open_until_end.enter_context(attached(options.var))
            folder = folder.with_name("demo-up")  # the other folder is the embedded databases'
            folder.mkdir(parents=True, exist_ok=True)
            yield client, folder, None
            return
        open_until_end.enter_context(_alone(folder))
        _wipe(folder)
        clock = FrozenClock(start)
        yield open_until_end.enter_context(embedded(folder, clock)), folder, clock


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SetupFailed(f"Another demo runs in {folder}: wait for its end, or choose another --var.") from None
        yield


def _wipe(folder: Path) -> None:
    """Start clean. Only what a demo has left is removed: the folder must bear its mark."""
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).exists():
        raise SetupFailed(f"{folder} holds something that no demo has left there: choose another --var.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARKER).write_text("Made by `tokengrid demo`, which starts by removing this folder.\n", encoding="utf-8")


def _calls(options: Options, source: Reader | None) -> Iterable[Call]:
    return generate(options.seed, options.calls or CALLS) if source is None else source


def _source(options: Options, source: Reader | None) -> dict[str, Any]:
    broken: list[BrokenLine] = source.broken if source is not None else []
    return {
        "seed": options.seed,
        "period": options.period,
        "against": options.against.value,
        "trace": "generated" if options.trace is None else options.trace.name,
        "trace_format": "generated" if source is None else source.format,
        "broken_lines": source.broken_count if source is not None else 0,
        "broken": [{"line": line, "reason": reason} for line, reason in broken],
    }


def _verdict(audited: AuditReport) -> dict[str, Any]:
    return {
        "audit_ok": audited.ok,
        "balances_match": audited.balances_match,
        "bills_match": audited.bills_match,
        "statements_match": audited.statements_match,
        "invariants_hold": audited.invariants_hold,
        "calls_match": audited.calls_match,
        "log_verified": audited.log_verified,
        "differences_count": audited.differences_count,
        "differences": audited.as_dict()["differences"][:DIFFERENCES_MAX],
    }


def _refused(service: str, command: Command, error: dict[str, Any], against: Against) -> TokengridError:
    if against is Against.up and "occurred_at" in error["details"].get("fields", {}):
        return SetupFailed(
            "The services take no events of that month: start them with TOKENGRID_BACKDATE_MAX_S set to "
            "seconds enough (`tokengrid down`, then `tokengrid up`)."
        )
    return TokengridError(f"{service} refuses {command.NAME}: {error['code']}: {error['message']}")


def _write(folder: Path, client: Client, settlement: dict[str, Any], chosen: BillIssued) -> dict[str, Path]:
    """The settlement and one bill beside the databases."""
    files = {"bill": folder / "bill.html", "settlement": folder / "settlement.json"}
    page = client.call("billing", "bill_page", number=chosen.bill.number, retries=RETRIES)
    files["bill"].write_text(page["html"], encoding="utf-8")
    files["settlement"].write_text(json.dumps(settlement, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return files
