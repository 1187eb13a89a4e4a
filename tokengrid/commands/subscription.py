"""`tokengrid subscription`: the plans that a subscriber has taken."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from shared.units import yuan
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

app = typer.Typer(no_args_is_help=True, help="Plans that a subscriber has taken: start, change, pause, resume, end.")

Plan = Annotated[str, typer.Argument(help="Plan of the operator, such as token-9.9.", show_default=False)]
Name = Annotated[str, typer.Argument(help="The subscription, as `list` shows it.", show_default=False)]
AtOnce = Annotated[
    bool, typer.Option("--at-once", help="Now, and what is unused is given back; default: at the period's end.")
]


@app.command()
def start(
    operator: Operator,
    account: Account,
    plan: Plan,
    starts_at: Annotated[
        str | None, typer.Option(help="First instant (ISO 8601 with zone); default: now.", show_default=False)
    ] = None,
    request_id: RequestKey = None,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Take a plan: its fee is charged and its points are granted period by period."""
    done = f"{operator}/{account} has taken {plan}"
    _command(against, var, json, "subscribe", done, operator, account, request_id, plan=plan, starts_at=starts_at)


@app.command()
def change(
    operator: Operator,
    account: Account,
    subscription: Name,
    plan: Plan,
    at_once: AtOnce = False,
    request_id: RequestKey = None,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Change to another plan. At once, both are charged by their days."""
    fields = {"subscription": subscription, "plan": plan, "at_once": at_once}
    _command(against, var, json, "change_subscription", f"{plan} holds", operator, account, request_id, **fields)


@app.command()
def pause(
    operator: Operator,
    account: Account,
    subscription: Name,
    at_once: AtOnce = False,
    request_id: RequestKey = None,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Pause: no period begins until it is resumed."""
    fields = {"subscription": subscription, "at_once": at_once}
    _command(against, var, json, "pause_subscription", "Paused", operator, account, request_id, **fields)


@app.command()
def resume(
    operator: Operator,
    account: Account,
    subscription: Name,
    request_id: RequestKey = None,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Resume now: a new period begins."""
    fields = {"subscription": subscription}
    _command(against, var, json, "resume_subscription", "Resumed", operator, account, request_id, **fields)


@app.command()
def end(
    operator: Operator,
    account: Account,
    subscription: Name,
    at_once: AtOnce = False,
    reason: Annotated[str, typer.Option(help="Why, for people.")] = "",
    request_id: RequestKey = None,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """End for good."""
    fields = {"subscription": subscription, "at_once": at_once, "reason": reason}
    _command(against, var, json, "end_subscription", "Ended", operator, account, request_id, **fields)


def _command(
    against: Against,
    var: Any,
    json: bool,
    method: str,
    done: str,
    operator: str,
    account: str,
    request_id: str | None,
    **fields: Any,
) -> None:
    with asking(against, var) as ask:
        receipt = ask(
            "billing",
            method,
            operator=operator,
            account=account,
            request_id=request_id or new_request_id(),
            **{name: value for name, value in fields.items() if value},
        )
        # A round is bounded: cut off after one, others would be left with periods overdue.
        while any(ask("billing", "renew").values()):
            pass
    if json:
        print_json(receipt)
        return
    since = local(receipt.get("starts_at") or receipt["effective_at"])
    typer.echo(f"{done}, from {since} in Shanghai: {receipt['subscription']} (event {receipt['position']})")


@app.command(name="list")
def list_(
    operator: Operator, account: Account, against: Where = Against.demo, var: Var = VAR, json: AsJson = False
) -> None:
    """What an account has subscribed to, and what is left of its money credit."""
    with asking(against, var) as ask:
        found = ask("billing", "subscriptions", operator=operator, account=account)
    if json:
        print_json(found)
        return
    print_table(
        f"Subscriptions of {operator}/{account}",
        ("subscription", "plan", "status", "period", "from, Shanghai", "to, Shanghai", "then"),
        (
            (
                s["subscription"],
                s["plan"],
                s["status"],
                s["period"] or "",
                local(s["starts_at"]),
                local(s["ends_at"]),
                s["next_plan"],
            )
            for s in found["subscriptions"]
        ),
        right=("period",),
    )
    if found["credit_fen"]:
        typer.echo(f"Credit: {yuan(found['credit_fen'])} yuan")
