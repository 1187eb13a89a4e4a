"""`tokengrid audit archive`: logs into Parquet files, checked, asked and put back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from shared.config import Settings
from shared.errors import SetupFailed, TokengridError
from shared.units import show_points
from tokengrid import supervise
from tokengrid.commands.audit_sources import archive_module, keys_by_log
from tokengrid.commands.options import (
    VAR,
    Account,
    AsJson,
    Operator,
    Var,
    Where,
    local,
    print_json,
    print_table,
)
from tokengrid.session import Against, demo_folder, embedded_settings, session

app = typer.Typer(no_args_is_help=True, help="Events of the past as Parquet files, with what proves them.")

Folder = Annotated[Path, typer.Argument(help="The archive's folder.", show_default=False)]


@dataclass(frozen=True)
class Databases:
    """Where the logs of services that run elsewhere are. `urls`: by service."""

    urls: dict[str, str]
    quota_shards: int

    def logs(self, service: str) -> tuple[str, ...]:
        return Settings(quota_shards=self.quota_shards).logs(service)

    def database_of(self, service: str) -> str:
        """As it was configured, for all its shards."""
        if service not in self.urls:
            raise SetupFailed(f"What runs here says nothing of the database of {service}.")
        return self.urls[service]

    def database_url(self, service: str, shard: int = 0) -> str:
        shards = self.quota_shards if service == "quota" else 1
        return self.database_of(service).replace("{service}", f"{service}_{shard}" if shards > 1 else service)


def _day(text: str | None) -> date | None:
    try:
        return None if text is None else datetime.strptime(text, "%Y-%m-%d").date()  # noqa: DTZ007 - Shanghai's
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no day, such as 2026-06-30") from None


def _positions(texts: list[str]) -> dict[str, int]:
    found = {}
    for text in texts:
        log, _, position = text.partition("=")
        if not log or not (position.isascii() and position.isdigit() and len(position) < 19):
            raise typer.BadParameter(f"{text!r} is no place in a log, such as quota=1000000")
        found[log] = int(position)
    return found


@app.command()
def write(
    folder: Folder,
    before: Annotated[
        str | None, typer.Option(help="What was recorded before this day in Shanghai.", metavar="YYYY-MM-DD")
    ] = None,
    to: Annotated[
        list[str] | None, typer.Option(help="Only this log, up to this position at least.", metavar="LOG=POSITION")
    ] = None,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Archive the logs up to a signed checkpoint; again, it goes on from what is there.

    Nothing is deleted from the databases.
    """
    day, positions = _day(before), _positions(to or [])
    run = archive_module("services.audit.archive.run")
    with session(against, var) as client, Console(stderr=True).status("archiving") as status:
        databases = embedded_settings(demo_folder(var)) if against is Against.demo else _of_those_up(var)
        unknown = positions.keys() - {log for service in run.ORDER for log in databases.logs(service)}
        if unknown:
            raise typer.BadParameter(f"there is no log {', '.join(sorted(unknown))} that can be archived")
        made = run.write_archive(
            client, databases, folder, before=day, to=positions,
            progress=lambda log, done, total: status.update(f"{log}: {done:,} of {total:,} events"),
        )  # fmt: skip
    rows = [_summary(manifest) for manifest in made]
    if json:
        print_json(rows)
    else:
        print_table(
            f"Archived in {folder}",
            ("log", "events", "days", "bytes", "signed by"),
            ((r["log"], f"{r['events']:,}", r["days"], f"{r['bytes']:,}", r["signed_by"]) for r in rows),
            right=("events", "days", "bytes"),
        )


@app.command()
def verify(
    folder: Folder,
    key: Annotated[
        list[str] | None,
        typer.Option(help="A log's verifier key, known from elsewhere; then the archive's own is not believed."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Check every file, every event, the tiles and the signatures. Exit code 0 only if all is as it was archived."""
    verifying, manifest = archive_module("services.audit.archive.verifying"), archive_module("shared.archive.manifest")
    keys, logs = keys_by_log(key) or {}, manifest.logs_of(folder)
    unknown = keys.keys() - set(logs)
    if unknown:  # else a slip of the pen would leave the archive's own key to be believed
        raise typer.BadParameter(f"the archive has no log {', '.join(sorted(unknown))}, of which a key was given")
    rows, wrong = [], False
    for log in logs:
        try:
            found = verifying.verify_log(folder, log, keys.get(log))
            rows.append({**found, "days": len(found["days"]), "wrong": ""})
        except TokengridError as error:
            wrong = True
            rows.append({"log": log, "events": 0, "days": 0, "bytes": 0, "signed_by": "", "wrong": str(error)})
    if json:
        print_json(rows)
    else:
        print_table(
            f"{folder}: {'not what was archived' if wrong else 'everything is as it was archived'}",
            ("log", "events", "days", "bytes", "signed by", "wrong"),
            ((r["log"], f"{r['events']:,}", r["days"], f"{r['bytes']:,}", r["signed_by"], r["wrong"]) for r in rows),
            right=("events", "days", "bytes"),
        )
    if wrong:
        raise typer.Exit(1)


@app.command()
def restore(
    folder: Folder,
    into: Annotated[Path, typer.Option(help="Folder of the new SQLite databases.", show_default=False)] = Path(),
    database: Annotated[
        str, typer.Option(help="SQLAlchemy URL of empty databases instead; {service} is filled in.", show_default=False)
    ] = "",
    json: AsJson = False,
) -> None:
    """Put the logs back into empty event databases; read models follow by themselves when the services start.

    Where it was killed it goes on. A database that has anything else is refused and stays as it is.
    """
    databases, reading, manifest = (
        archive_module("services.audit.archive.databases"),
        archive_module("shared.archive.reading"),
        archive_module("shared.archive.manifest"),
    )
    if bool(database) == (into != Path()):
        raise typer.BadParameter("say either --into or --database")
    logs = [reading.LogArchive.open(folder, log) for log in manifest.logs_of(folder)]
    shards = sum(log.manifest.service == "quota" for log in logs)
    given: dict[str, Any] = {"database": database} if database else {"database": "sqlite:///{var}/{service}.db"}
    settings = Settings(var=into, quota_shards=max(shards, 1), **given)
    restored = {}
    with Console(stderr=True).status("restoring") as status:
        for log in logs:
            about = log.manifest
            restored[about.log] = databases.restore(
                log,
                settings.database_url(about.service, about.shard),
                lambda name, done, total: status.update(f"{name}: {done:,} of {total:,} events"),
            )
    if json:
        print_json(restored)
    else:
        print_table("Restored", ("log", "events"), ((n, f"{c:,}") for n, c in restored.items()), right=("events",))


@app.command()
def drop(
    folder: Folder,
    log: Annotated[str, typer.Option(help="Which of quota's logs.")] = "quota",
    until: Annotated[
        int | None, typer.Option(min=1, help="Nothing behind this position.", show_default="as far as archived")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="The log's verifier key, known from elsewhere.", show_default=False)
    ] = None,
    database: Annotated[
        str,
        typer.Option(
            help="SQLAlchemy URL of quota's, {service} is filled in. Default: that of what `tokengrid up` runs.",
            show_default=False,
        ),
    ] = "",
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Drop from PostgreSQL what the archive has of a log of quota, a whole partition at a time.

    Every answer stays as it was if quota's processes run with TOKENGRID_ARCHIVE=FOLDER; those need not be stopped.
    """
    logs = archive_module("shared.archive.manifest").logs_of(folder)
    shards = sum(name.partition("-")[0] == "quota" for name in logs)
    settings = Settings(database=database or _of_those_up(var).database_of("quota"), quota_shards=max(shards, 1))
    with Console(stderr=True).status("dropping") as status:
        dropping = archive_module("tokengrid.dropping")
        parts = dropping.drop_archived(settings, folder, log, until=until, verifier_key=key, progress=status.update)
    if json:
        print_json([part._asdict() for part in parts])
        return
    rows = ((p.log, f"{p.first:,}", f"{p.last:,}", f"{p.accounts:,}") for p in parts)
    numbers = ("first", "last", "snapshots taken")
    print_table("Dropped", ("log", *numbers), rows, right=numbers)


@app.command()
def statement(folder: Folder, operator: Operator, account: Account, json: AsJson = False) -> None:
    """Everything that happened to an account, from the archive alone."""
    events = archive_module("services.audit.archive.queries").statement(folder, operator, account)
    if json:
        print_json(events)
        return
    print_table(
        f"{operator}/{account}",
        ("version", "at, Shanghai", "event", "name", "points", "model"),
        (
            (
                e["version"], local(e["at"]), e["kind"], e["request_id"],
                show_points(e["amount"]) if "amount" in e else "", e.get("model", ""),
            )
            for e in events
        ),
        right=("version", "points"),
    )  # fmt: skip


def _summary(manifest: Any) -> dict[str, Any]:
    return {
        "log": manifest.log,
        "events": manifest.size,
        "days": len({part.day for part in manifest.parts}),
        "bytes": sum(file.bytes for file in manifest.files()),
        "root_sha256": manifest.root_sha256,
        "signed_by": manifest.verifier_key if manifest.note else "",
    }


def _of_those_up(var: Path) -> Databases:
    plan = supervise.read_plan(Path(var).absolute() / "up")
    urls = {p.service: p.env["TOKENGRID_DATABASE"] for p in plan if "TOKENGRID_DATABASE" in p.env}
    shards = {program.env.get("TOKENGRID_QUOTA_SHARDS", "1") for program in plan if program.service == "quota"}
    return Databases(urls, int(max(shards, default="1")))
