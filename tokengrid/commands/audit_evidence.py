"""`tokengrid audit evidence` and `verify`: a bill's proof as one file, and what such a file proves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from services.audit.evidence import Verdict, collect, pack, render_html, unpack, verify
from shared.errors import MalformedCommand
from shared.transparency.keys import VerifierKey
from shared.units import yuan
from tokengrid.commands.options import VAR, AsJson, Var, Where, print_json, print_table
from tokengrid.session import Against, session

Keys = Annotated[
    list[str],
    typer.Option("--key", help="A log's verifier key, `name+id+…`; once a log.", metavar="KEY", show_default=False),
]
Page = Annotated[
    Path | None,
    typer.Option("--html", help="A page as well, from the total to each debit.", metavar="FILE"),
]


def evidence(
    bill: Annotated[str, typer.Option("--bill", help="Bill number, such as shanghai-telecom-2026-06-000001.")],
    file: Annotated[Path | None, typer.Argument(help="Default: BILL.evidence.", show_default=False)] = None,
    html: Page = None,
    against: Where = Against.demo,
    var: Var = VAR,
) -> None:
    """Make one file that proves a bill: its debits and prices, with their proofs and the signed checkpoints.

    Whoever has the logs' public keys from elsewhere can verify it anywhere, without asking anybody: `tokengrid audit
    verify`, or `deploy/verify_evidence.py`, which needs nothing of ours.
    """
    target = file or Path(f"{bill}.evidence")
    with session(against, var) as client, Console(stderr=True).status("collecting") as status:
        made = collect(client, bill, lambda log, events: status.update(f"{log}: {events:,} events"))
        keys = client.call("audit", "status")["verifier_keys"]
    data = pack(made)
    verdict = verify(made, [VerifierKey.parse(keys[proven.log]) for proven in made.logs])
    target.write_bytes(data)
    if html is not None:
        html.write_text(render_html(made, verdict), encoding="utf-8", errors="replace")
    events = sum(len(proven.events) for proven in made.logs)
    typer.echo(f"{target}: {len(data):,} bytes, {events:,} events, {_word(verdict)}")
    for proven in made.logs:
        typer.echo(f"  --key {keys[proven.log]}")
    if not verdict.ok:
        raise typer.Exit(1)


def verify_file(
    file: Annotated[Path, typer.Argument(help="An evidence file.", show_default=False)],
    key: Keys,
    witness: Annotated[
        list[str] | None, typer.Option("--witness", help="A witness's verifier key.", metavar="KEY", show_default=False)
    ] = None,
    witnesses_min: Annotated[int, typer.Option("--witnesses-min", min=0, help="Cosigned by so many of them.")] = 0,
    html: Page = None,
    json: AsJson = False,
) -> None:
    """Verify an evidence file with public keys alone: signatures, proofs, and the bill computed again.

    Exit code 0 only if everything agrees. Nobody is asked: it works without a network.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise MalformedCommand(f"{file} cannot be read: {error.strerror}", {"file": str(file)}) from None
    found = unpack(data)
    witnesses = [VerifierKey.parse(text) for text in witness or ()]
    verdict = verify(found, [VerifierKey.parse(text) for text in key], witnesses, witnesses_min)
    if html is not None:
        html.write_text(render_html(found, verdict), encoding="utf-8", errors="replace")
    if json:
        print_json(_as_dict(verdict))
    else:
        _show(verdict)
    if not verdict.ok:
        raise typer.Exit(1)


def _word(verdict: Verdict) -> str:
    return "proven" if verdict.ok else f"{len(verdict.differences):,} differences"


def _show(verdict: Verdict) -> None:
    bill = verdict.bill
    title = f"{bill['number']}: {yuan(bill['total_fen'])} yuan, {bill['calls']:,} calls: {_word(verdict)}"
    rows = (
        (
            each.log,
            f"{len(verdict.leaves[each.log]):,}",
            f"{each.checkpoint.size:,}",
            each.checkpoint.root.hex(),
            each.key,
        )
        for each in verdict.signed
    )
    print_table(title, ("log", "events", "of", "signed root", "key"), rows, ("events", "of"))
    if verdict.differences:
        found = ((d.what, d.log, d.position, d.expected, d.found) for d in verdict.differences)
        print_table("Differences", ("what", "log", "position", "expected", "found"), found)


def _as_dict(verdict: Verdict) -> dict[str, object]:
    return {
        "ok": verdict.ok,
        "bill": verdict.bill,
        "bill_sha256": verdict.bill_sha256,
        "void": verdict.void,
        "paid_fen": verdict.paid_fen,
        "credited_fen": verdict.credited_fen,
        "logs": {
            each.log: {
                "events": len(verdict.leaves[each.log]),
                "size": each.checkpoint.size,
                "root_sha256": each.checkpoint.root.hex(),
                "verifier_key": str(each.key),
                "witnessed_s": {str(key): at for key, at in each.witnessed_s.items()},
            }
            for each in verdict.signed
        },
        "differences": [vars(each) for each in verdict.differences],
    }
