"""What a billing desk does to bills and accounts: payments, credit notes, bills made void, credits, drafts."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from shared.units import FEN_PER_YUAN, yuan
from tokengrid.commands.options import (
    VAR,
    Account,
    AsJson,
    BillNumber,
    Operator,
    RequestKey,
    Var,
    Where,
    asking,
    month,
    new_request_id,
    print_json,
    print_table,
)
from tokengrid.session import Against

DRAFTS_PAGE = 200
NEGATIVE = {"ignore_unknown_options": True}  # a refund's amount begins as an option does

Reason = Annotated[str, typer.Option(help="Why, for whoever asks later.", show_default=False)]
Fen = Annotated[int, typer.Argument(min=1, help="Fen (1/100 yuan).", show_default=False)]


def fen_of(text: str) -> int:
    """The fen of `1234` (fen) or `12.34` (yuan); either may be negative."""
    found = re.fullmatch(r"([+-]?)(?:([0-9]{1,15})\.([0-9]{2})|([0-9]{1,15}))", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no amount: write 12.34 for yuan, 1234 for fen")
    sign, whole, cents, fen = found.groups()
    amount = int(fen) if fen else int(whole) * FEN_PER_YUAN + int(cents)
    return -amount if sign == "-" else amount


def pay(
    number: BillNumber,
    amount: Annotated[
        str,
        typer.Argument(
            metavar="YUAN_OR_FEN", help="12.34 is yuan, 1234 is fen; negative: a refund.", show_default=False
        ),
    ],
    request_id: RequestKey = None,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Record a payment of a bill."""
    fen = fen_of(amount)
    _command(against, var, json, "pay", f"{yuan(fen)} yuan paid on {number}.", request_id, number=number, fen=fen)


def credit_note(
    number: BillNumber,
    fen: Fen,
    reason: Reason,
    request_id: RequestKey = None,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Issue a credit note on a bill: a correction in the subscriber's favour."""
    done = f"{yuan(fen)} yuan of {number} credited."
    _command(against, var, json, "credit", done, request_id, number=number, fen=fen, reason=reason)


def void(
    number: BillNumber,
    reason: Reason,
    request_id: RequestKey = None,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Make a bill void on which nothing was paid or credited; the month's close then issues another one."""
    _command(against, var, json, "void", f"Bill {number} is void.", request_id, number=number, reason=reason)


def credit(
    operator: Operator,
    account: Account,
    fen: Fen,
    reason: Reason,
    request_id: RequestKey = None,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Give a subscriber money in favour, which the next bills use up."""
    done = f"{yuan(fen)} yuan credited to {operator}/{account}."
    who = {"operator": operator, "account": account}
    _command(against, var, json, "grant_credit", done, request_id, **who, fen=fen, reason=reason)


def _command(
    against: Against, var: Any, json: bool, method: str, done: str, request_id: str | None, **fields: Any
) -> None:
    with asking(against, var) as ask:
        receipt = ask("billing", method, request_id=request_id or new_request_id(), **fields)
    if json:
        print_json(receipt)
        return
    named = f"Credit note {receipt['number']}: " if method == "credit" else ""
    typer.echo(f"{named}{done} (event {receipt['position']}{', as before' if receipt['replayed'] else ''})")


def draft(
    operator: Operator,
    which: Annotated[
        list[str], typer.Argument(metavar="[ACCOUNT] MONTH", help="Account and month; with --all, the month.")
    ],
    everyone: Annotated[bool, typer.Option("--all", help="Every account that has no bill for the month yet.")] = False,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Show bills as they would be now, without numbers; nothing is issued. Possible before the month's end, too."""
    if len(which) != (1 if everyone else 2):
        raise typer.BadParameter("name an account and a month, or --all and a month")
    period = month(which[-1])
    with asking(against, var) as ask:
        if everyone:
            drafts = _drafts(ask, operator, period)
        else:
            drafts = [ask("billing", "dry_run", operator=operator, account=which[0], period=period)]
    if json:
        print_json(drafts)
        return
    print_table(
        f"Drafts of {operator} for {period}",
        ("account", "lines", "yuan", "VAT in it", "sha256"),
        (
            (
                bill["account"],
                f"{len(bill['lines']):,}",
                yuan(bill["total_fen"]),
                yuan(bill["vat_fen"]),
                drafted["bill_sha256"][:16],
            )
            for drafted in drafts
            for bill in (drafted["bill"],)
        ),
        right=("lines", "yuan", "VAT in it"),
    )
    typer.echo(f"In all {yuan(sum(drafted['bill']['total_fen'] for drafted in drafts))} yuan; nothing was issued.")


def _drafts(ask: Any, operator: str, period: str) -> list[dict[str, Any]]:
    """Of every account without a bill, as of how far billing is now."""
    drafts: list[dict[str, Any]] = []
    (status,) = ask("billing", "close_status", operator=operator, period=period)["operators"]
    for shard, its in enumerate(status["shards"]):
        after, more = "", True
        while more:
            page = ask(
                "billing",
                "draft_bills",
                operator=operator,
                period=period,
                quota_shard=shard,
                quota_position=its["followed"],
                after=after,
                limit=DRAFTS_PAGE,
            )
            drafts += page["drafts"]
            after, more = page["last"], page["more"]
    return drafts
