"""`tokengrid bill`: issued bills, and who owes whom between operators; its other commands have modules of their own."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from shared.units import show_points, yuan
from tokengrid.commands import bill_close, bill_desk, bill_files, bill_rebuild, bill_review
from tokengrid.commands.options import (
    VAR,
    AnyMonthOption,
    AsJson,
    BillNumber,
    MonthArgument,
    Var,
    Where,
    asking,
    local,
    print_json,
    print_table,
)
from tokengrid.session import Against

CLOSE, DESK = "Close a month", "Work on bills"
app = typer.Typer(no_args_is_help=True, help="Bills: look into them, close a month, pay, correct, make void.")
app.command(rich_help_panel=CLOSE)(bill_close.close)
app.command(rich_help_panel=CLOSE)(bill_desk.draft)
app.command("rebuild", rich_help_panel=CLOSE)(bill_rebuild.rebuild_bills)
app.command("what-if", rich_help_panel=CLOSE)(bill_review.what_if_month)
app.command(rich_help_panel=DESK, context_settings=bill_desk.NEGATIVE)(bill_desk.pay)
app.command("credit-note", rich_help_panel=DESK)(bill_desk.credit_note)
app.command(rich_help_panel=DESK)(bill_desk.void)
app.command(rich_help_panel=DESK)(bill_desk.credit)
PAGE = 200


@app.command(name="list")
def list_(
    operator: Annotated[str | None, typer.Option(help="Of this operator only.", show_default=False)] = None,
    account: Annotated[str | None, typer.Option(help="Of this account only.", show_default=False)] = None,
    month: AnyMonthOption = None,
    after: Annotated[str, typer.Option(help="Behind this bill number.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Bills at most.")] = 50,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """List issued bills in the order of their numbers."""
    bills: list[dict[str, Any]] = []
    with asking(against, var) as ask:
        more = True
        while more and len(bills) < limit:
            page = ask(
                "billing",
                "bills",
                operator=operator,
                account=account,
                period=month,
                after=bills[-1]["number"] if bills else after,
                limit=min(PAGE, limit - len(bills)),
            )
            bills += page["bills"]
            more = page["more"]
    if json:
        print_json(bills)
        return
    print_table(
        "Bills",
        ("number", "account", "month", "status", "yuan", "VAT in it", "paid", "sha256"),
        (
            (
                b["number"],
                b["account"],
                b["period"],
                b["status"],
                yuan(b["total_fen"]),
                yuan(b["vat_fen"]),
                yuan(b["paid_fen"]),
                b["sha256"][:16],
            )
            for b in bills
        ),
        right=("yuan", "VAT in it", "paid"),
    )
    if more:
        typer.echo(f"There are more: --after {bills[-1]['number']}")


@app.command()
def show(number: BillNumber, against: Where = Against.demo, var: Var = VAR, json: AsJson = False) -> None:
    """Show one bill with its lines."""
    with asking(against, var) as ask:
        found = ask("billing", "bill", number=number)
    if json:
        print_json(found)
        return
    bill = found["bill"]
    print_table(
        f"Bill {bill['number']} · {bill['operator']}/{bill['account']} · {bill['period']}",
        ("kind", "text", "calls", "points", "yuan"),
        (
            (
                line["kind"],
                line["text"],
                f"{line.get('calls', 0):,}" if line.get("calls") else "",
                show_points(line.get("amount", 0)),
                yuan(line["fen"]),
            )
            for line in bill["lines"]
        ),
        right=("calls", "points", "yuan"),
    )
    typer.echo(
        f"Total {yuan(bill['total_fen'])} yuan, VAT of {bill['vat_percent']} % in it {yuan(bill['vat_fen'])}; "
        f"{found['status']}, due {yuan(found['due_fen'])}. "
        f"Issued {local(found['issued_at'])}, sha256 {found['bill_sha256']}."
    )
    if found["void"]:
        typer.echo(f"Void since {local(found['void']['at'])}: {found['void']['reason']}")


@app.command()
def html(
    number: BillNumber,
    file: bill_files.FileToWrite,
    against: Where = Against.demo,
    var: Var = VAR,
) -> None:
    """Write one bill as a printable page."""
    with asking(against, var) as ask:
        page = ask("billing", "bill_page", number=number)
    file.write_text(page["html"], encoding="utf-8")
    typer.echo(f"{file}: bill {number}")


app.command()(bill_files.pdf)
app.command()(bill_files.charge_file)
app.command("check-charge-file")(bill_files.check_charges)
app.command()(bill_files.focus)
app.command("check-focus")(bill_files.check_focus_file)


@app.command()
def settlement(month: MonthArgument, against: Where = Against.demo, var: Var = VAR, json: AsJson = False) -> None:
    """Who owes whom between operators for a month."""
    with asking(against, var) as ask:
        found = ask("billing", "settlement", period=month)
    if json:
        print_json(found)
    else:
        print_settlement(found)


def print_settlement(found: dict[str, Any]) -> None:
    """The matrix, and what is left of both directions."""
    matrix = found["matrix"]
    operators = sorted({*matrix, *(serving for row in matrix.values() for serving in row)})
    print_table(
        "Settlement, yuan: who (row) owes whom (column)",
        ("", *operators),
        ((home, *(yuan(matrix.get(home, {}).get(o, 0)) if o != home else "" for o in operators)) for home in operators),
        right=operators,
    )
    for pair in found["netting"]:
        typer.echo(f"Net: {pair['debtor']} owes {pair['creditor']} {yuan(pair['fen'])} yuan")
