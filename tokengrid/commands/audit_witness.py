"""`tokengrid audit witness`: another operator's countersignature under checkpoints, or an alarm."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from services.audit.keys import make_key
from services.audit.witness import Cosigned, Witness, proof_of
from shared.errors import SetupFailed
from shared.transparency.keys import COSIGNATURE, SigningKey, VerifierKey
from tokengrid.commands.options import VAR, Var, Where, print_table
from tokengrid.session import Against, session

HARMLESS = ("cosigned", "nothing is signed yet")


def witness(
    name: Annotated[str, typer.Option("--name", help="Under which name we sign, such as example.org/w1.")],
    folder: Annotated[Path, typer.Option("--folder", help="Where our key is, and what we signed. Back it up.")],
    key: Annotated[
        list[str] | None,
        typer.Option("--key", help="A log's verifier key, from elsewhere; default: the service's.", metavar="KEY"),
    ] = None,
    against: Where = Against.demo,
    var: Var = VAR,
) -> None:
    """Countersign the checkpoints of all logs, if nothing before what we signed last has changed.

    A fork, a rewrite and a cut log are refused, and audit's log gets an alarm with our signed statement. The first run
    makes our key; whoever runs the audit service adds its public half to TOKENGRID_WITNESS_KEYS. Exit code 1 if
    anything was refused.
    """
    ours = _key(folder, name)
    typer.echo(f"our verifier key: {ours.verifier}")
    told: list[tuple[str, int, str]] = []
    with session(against, var) as client:
        keys = _log_keys(client.call("audit", "status")["verifier_keys"], key or ())
        for log, log_key in keys.items():
            told.append((log, *_judged(client, Witness(ours, folder), log, log_key)))
    print_table("Checkpoints", ("log", "size", ""), told, ("size",))
    if any(word not in HARMLESS for _, _, word in told):
        raise typer.Exit(1)


def _judged(client: Any, ours: Witness, log: str, log_key: VerifierKey) -> tuple[int, str]:
    checkpoint = client.call("audit", "checkpoint", log=log)
    if not checkpoint["note"]:
        return 0, "nothing is signed yet"

    def prove(first: int, second: int) -> Sequence[bytes]:
        return proof_of(client.call("audit", "consistency", log=log, first=first, second=second))

    said = ours.judge(checkpoint["note"], log_key, prove, int(time.time()))
    if isinstance(said, Cosigned):
        client.call("audit", "cosign", log=log, note=said.note)
        return checkpoint["size"], "cosigned"
    client.call("audit", "refuse", log=log, note=said.note)
    return checkpoint["size"], f"REFUSED: {said.kind}"


def _log_keys(named: Mapping[str, str], given: Sequence[str]) -> dict[str, VerifierKey]:
    """By log; `given` ones go before those that the service names."""
    keys = {log: VerifierKey.parse(text) for log, text in sorted(named.items())}
    keys.update({key.name.rpartition("/")[2]: key for key in map(VerifierKey.parse, given)})
    return keys


def _key(folder: Path, name: str) -> SigningKey:
    """The key in the folder; made on the first start, readable by its owner alone."""
    path = folder / "key"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            made = SigningKey.generate(name, COSIGNATURE)
            with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="ascii") as file:
                file.write(made.secret_text() + "\n")
        found = SigningKey.parse(path.read_text(encoding="ascii").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise SetupFailed(f"{path}: our key cannot be read: {type(error).__name__}.") from None
    if found.name != name:
        raise SetupFailed(f"{path} is the key of {found.name}, not of {name}.")
    return found


def new_key(
    file: Annotated[Path, typer.Argument(help="Where to, such as var/audit/next-key.", show_default=False)],
    origin: Annotated[str, typer.Option("--origin", help="Prefix of the logs' names in checkpoints.")] = "tokengrid",
) -> None:
    """Make a signing key for the audit service, in a file that only its owner can read.

    Beside the present key, as `next-key`, it signs along with it until it takes its place.
    """
    made = make_key(file, origin)
    typer.echo(f"{file}: {made.verifier}")
