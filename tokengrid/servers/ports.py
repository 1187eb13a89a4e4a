"""Free TCP ports on loopback. A port may be taken between the look and its use: the caller retries."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterable

from shared.errors import SetupFailed

LOOPBACK = "127.0.0.1"
# Below the range from which Linux takes the source ports of outgoing connections (32768 and up), so that a
# server that is started again finds its port as it left it.
FIRST, LAST = 20_000, 32_000
TRIES_MAX = 400
START_TRIES_MAX = 4  # a lost race for a port is rare; four in a row are another problem


def free_ports(count: int) -> list[int]:
    """`count` different ports on which nothing listens now. SetupFailed: none found."""
    found: list[int] = []
    for _ in range(TRIES_MAX):
        port = FIRST + secrets.randbelow(LAST - FIRST)
        if port not in found and is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise SetupFailed(f"No {count} free TCP ports between {FIRST} and {LAST} on {LOOPBACK}: end some servers.")


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of the last run that linger in TIME_WAIT are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def still_free(ports: Iterable[int]) -> bool:
    return all(is_free(port) for port in ports)
