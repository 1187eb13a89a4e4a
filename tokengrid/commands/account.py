"""`tokengrid account`: one subscriber's wallet."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from shared.units import millipoints, show_points
from tokengrid.commands.options import (
    VAR,
    Account,
    AsJson,
    Operator,
    RequestKey,
    Var,
    Where,
    asking,
    local,
    new_request_id,
    print_json,
    print_table,
)
from tokengrid.session import Against

app = typer.Typer(no_args_is_help=True, help="One subscriber's wallet: open, grant, balance, statement, debits.")
PAGE = 1000

Sources = Annotated[
    str, typer.Option(help="Where the points come from: purchase, plan, trial, bundle, promotion or adjustment.")
]
KnownAt = Annotated[
    str | None, typer.Option(help="As of when it was recorded: an instant (ISO 8601 with zone); default: now.")
]
After = Annotated[int, typer.Option(min=0, help="Behind this version of the account.")]
Before = Annotated[int | None, typer.Option(min=1, help="Before this version of the account.", show_default=False)]
Since = Annotated[str | None, typer.Option(help="Happened then or later (ISO 8601 with zone).", show_default=False)]
Until = Annotated[str | None, typer.Option(help="Happened before then (ISO 8601 with zone).", show_default=False)]
NewestFirst = Annotated[bool, typer.Option("--newest-first", help="Begin with what was recorded last.")]


@app.command(name="open")
def open_(
    operator: Operator,
    account: Account,
    plan: Annotated[str, typer.Option(help="Plan whose price as you go holds for what no grant covers.")] = "",
    credit_points: Annotated[int, typer.Option(min=0, help="Credit limit, points; above 0: postpaid.")] = 0,
    subscriber: Annotated[str, typer.Option(help="Name of the subscriber's record.")] = "",
    request_id: RequestKey = None,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Open an account."""
    _command(
        against,
        var,
        json,
        "open_account",
        f"Account {operator}/{account} is open.",
        operator=operator,
        account=account,
        request_id=request_id or new_request_id(),
        plan=plan or None,
        subscriber=subscriber or None,
        credit_limit=millipoints(credit_points),
    )


@app.command()
def grant(
    operator: Operator,
    account: Account,
    points: Annotated[int, typer.Argument(min=1, help="Points.", show_default=False)],
    source: Sources = "purchase",
    price_fen: Annotated[int, typer.Option(min=0, help="Price paid, fen (1/100 yuan).")] = 0,
    plan: Annotated[str, typer.Option(help="Plan that the points belong to.")] = "",
    expires_at: Annotated[str | None, typer.Option(help="When they end (ISO 8601 with zone); default: never.")] = None,
    request_id: RequestKey = None,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Grant points to an account."""
    _command(
        against,
        var,
        json,
        "grant",
        f"{points:,} points granted to {operator}/{account}.",
        operator=operator,
        account=account,
        request_id=request_id or new_request_id(),
        amount=millipoints(points),
        source=source,
        price_fen=price_fen,
        plan=plan or None,
        expires_at=expires_at,
    )


def _command(against: Against, var: Any, json: bool, method: str, done: str, **fields: Any) -> None:
    with asking(against, var) as ask:
        receipt = ask("quota", method, **fields)
    if json:
        print_json(receipt)
    else:
        typer.echo(f"{done} (event {receipt['position']}{', as before' if receipt['replayed'] else ''})")


@app.command()
def balance(
    operator: Operator,
    account: Account,
    at: Annotated[
        str | None, typer.Option(help="As of when it happened: an instant (ISO 8601 with zone); default: now.")
    ] = None,
    known_at: KnownAt = None,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """What an account has, and what became of every grant; now, or as of a past instant."""
    with asking(against, var) as ask:
        found = ask("quota", "balance", operator=operator, account=account, at=at, known_at=known_at)
    if json:
        print_json(found)
        return
    parts = [f"{show_points(found['available'])} points available", f"{show_points(found['reserved'])} reserved"]
    if found["credit_limit"]:
        limit, left = show_points(found["credit_limit"]), show_points(found["credit_left"])
        parts.append(f"credit {left} of {limit} left")
    if found["overdrawn"]:
        parts.append(f"{show_points(found['overdrawn'])} overdrawn")
    typer.echo(f"{operator}/{account} is {found['status']}: {', '.join(parts)}.")
    figures = ("granted", "available", "reserved", "debited", "reversed", "expired", "voided")
    print_table(
        "Grants, points",
        ("grant", "source", "plan", *figures, "ends"),
        (
            (g["grant"], g["source"], g["plan"], *(show_points(g[name]) for name in figures), local(g["expires_at"]))
            for g in found["grants"]
        ),
        right=figures,
    )


@app.command()
def statement(
    operator: Operator,
    account: Account,
    after: After = 0,
    before: Before = None,
    since: Since = None,
    until: Until = None,
    known_at: KnownAt = None,
    newest_first: NewestFirst = False,
    limit: Annotated[int, typer.Option(min=1, help="Events at most.")] = 100,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Everything that happened to an account, by version."""
    bounds = _bounds(after, before, since, until, known_at, newest_first)
    events = _events(operator, account, bounds, limit, against, var)
    if json:
        print_json(events)
        return
    print_table(
        f"{operator}/{account}",
        ("version", "at, Shanghai", "event", "name", "points", "model"),
        (
            (
                e["version"],
                local(e["at"]),
                e["kind"],
                e["request_id"],
                show_points(e["amount"]) if "amount" in e else "",
                e.get("model", ""),
            )
            for e in events
        ),
        right=("version", "points"),
    )


@app.command()
def debits(
    operator: Operator,
    account: Account,
    after: After = 0,
    before: Before = None,
    since: Since = None,
    until: Until = None,
    known_at: KnownAt = None,
    newest_first: NewestFirst = False,
    limit: Annotated[int, typer.Option(min=1, help="Debits at most.")] = 100,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """What an account's calls used and cost, by version."""
    bounds = _bounds(after, before, since, until, known_at, newest_first)
    events = _events(operator, account, bounds, limit, against, var, kind="TokensDebited")
    if json:
        print_json(events)
        return
    classes = ("input", "cached_input", "output")
    print_table(
        f"Debits of {operator}/{account}",
        ("version", "at, Shanghai", "call", "model", *classes, "points", "served by", "deployment"),
        (
            (
                e["version"],
                local(e["at"]),
                e["call"],
                e["model"],
                *(f"{e['usage'].get(name, 0):,}" for name in classes),
                show_points(e["amount"]),
                e.get("serving_operator", ""),
                e.get("deployment", ""),
            )
            for e in events
        ),
        right=("version", *classes, "points"),
    )


def _bounds(
    after: int, before: int | None, since: str | None, until: str | None, known_at: str | None, newest_first: bool
) -> dict[str, Any]:
    return {
        "after": after,
        "before": before,
        "since": since,
        "until": until,
        "known_at": known_at,
        "newest_first": newest_first,
    }


def _events(
    operator: str,
    account: str,
    bounds: dict[str, Any],
    limit: int,
    against: Against,
    var: Any,
    kind: str | None = None,
) -> list[dict[str, Any]]:
    """At most `limit` events of an account within bounds, of one kind if it is named."""
    found: list[dict[str, Any]] = []
    cursor = "before" if bounds["newest_first"] else "after"
    wanted = min(PAGE, limit) if kind is None else PAGE
    with asking(against, var) as ask:
        more = True
        while more and len(found) < limit:
            page = ask("quota", "statement", operator=operator, account=account, limit=wanted, **bounds)
            found += [event for event in page["events"] if kind in (None, event["kind"])]
            more = page["more"]
            bounds[cursor] = page["next"]
    return found[:limit]
