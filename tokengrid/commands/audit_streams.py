"""`tokengrid audit streams`: how far the logs are copied into RabbitMQ's streams."""

from __future__ import annotations

from typing import Any

import typer

from services.audit.copying import places
from shared.errors import MalformedCommand
from shared.messaging.streams import connected, last_position
from tokengrid import up
from tokengrid.commands.options import VAR, AsJson, Var, print_json, print_table
from tokengrid.session import Against, session


def streams(var: Var = VAR, json: AsJson = False) -> None:
    """Each log's head, how far its stream has it, and what is missing. Exit code 0 only if nothing is.

    It looks into the streams themselves, whether the process that writes them runs or not.
    """
    settings = up.client_settings(var)
    rows: list[dict[str, Any]] = []
    with session(Against.up, var) as client, connected(settings.broker) as connection:
        for log, service, shard in places(settings):
            head = client.call(service, "head", shard=shard)
            try:
                copied = last_position(connection, log)
            except MalformedCommand:  # there is no stream yet
                copied = 0
            rows.append({"log": log, "head": head, "copied": copied, "lag": max(head - copied, 0)})
    if json:
        print_json(rows)
    else:
        columns = ("log", "head", "copied", "lag")
        print_table("Streams", columns, ([f"{row[c]:,}" if c != "log" else row[c] for c in columns] for row in rows))
    if any(row["lag"] for row in rows):
        raise typer.Exit(1)
