"""What billing asks itself about subscriptions; never a client. They have no request keys: the state decides."""

from __future__ import annotations

from datetime import datetime

from shared.contracts.base import Command, Name


class Advance(Command, frozen=True, kw_only=True):
    """Work out the account's periods that begin by `until`."""

    operator: str
    account: str
    until: datetime


class SettlePeriod(Command, frozen=True, kw_only=True):
    """Quota has withdrawn or expired `unused` of a period's points."""

    operator: str
    account: str
    subscription: Name
    number: int
    unused: int


class DropPeriod(Command, frozen=True, kw_only=True):
    """Quota grants no points for a period, for good."""

    operator: str
    account: str
    subscription: Name
    number: int
    reason: str


class CloseOff(Command, frozen=True, kw_only=True):
    """The account was closed: all its subscriptions are over."""

    operator: str
    account: str


Inward = Advance | SettlePeriod | DropPeriod | CloseOff
