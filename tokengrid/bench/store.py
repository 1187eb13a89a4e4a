"""Which stores are measured."""

from __future__ import annotations

from enum import StrEnum


class Store(StrEnum):
    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"
    ALL = "all"
