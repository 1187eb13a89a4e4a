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
    """Quota will not do what was ordered for a period, for good: grant its points or, where they were `granted`,
    withdraw them."""

    operator: str
    account: str
    subscription: Name
    number: int
    granted: bool
    reason: str


class CloseOff(Command, frozen=True, kw_only=True):
    """The account was closed: all its subscriptions are over."""

    operator: str
    account: str


Inward = Advance | SettlePeriod | DropPeriod | CloseOff
