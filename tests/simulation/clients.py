"""What clients ask for: random commands with few names, so that what one makes another refers to.

Every field is given, so that two commands are the same exactly when their fields are. Repeated names with other
fields are meant: they are conflicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any

OPERATOR = "shanghai-telecom"
ACCOUNTS = ("a", "a", "a", "b", "b", "c")
MODELS = ("kimi-k2.5", "kimi-k2.5", "deepseek-chat", "deepseek-chat", "unpriced", "no-such-model")
HUGE = 9 * 10**15

WEIGHTS = {
    "open_account": 2,
    "grant": 14,
    "reserve": 24,
    "extend": 8,
    "settle": 24,
    "release": 6,
    "debit": 14,
    "reverse": 14,
    "void_grant": 4,
    "set_credit_limit": 2,
    "suspend": 2,
    "resume": 5,
    "close_account": 0.6,
}


def command(dice: Random, asked: Sequence[dict[str, Any]], now: datetime, name: str = "") -> dict[str, Any]:
    """A command as a client sends it after those it has `asked` for; of any kind unless named."""
    name = name or dice.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    own = f"x{len(asked)}"
    account = dice.choice(ACCOUNTS)
    fields: dict[str, Any] = {
        "command": name,
        "operator": OPERATOR,
        "account": account,
        "request_id": own,
        "occurred_at": _occurred_at(dice, now),
    }
    match name:
        case "open_account":
            fields |= {"credit_limit": dice.choice([0, 500_000])}
        case "grant":
            fields |= {
                "request_id": dice.choice([f"g{dice.randrange(6)}", own, f"v{dice.randrange(3)}/0"]),
                "amount": HUGE if dice.random() < 0.06 else _amount(dice) * 2,
                "source": dice.choice(["purchase", "trial"]),
                "priority": dice.randrange(3),
                "scope": dice.choice([{}, {"families": ["kimi"]}]),
                "expires_at": _expires_at(dice, now),
            }
        case "reserve":
            by_usage = dice.random() < 0.5
            fields |= {
                "request_id": _hold(dice),
                "model": dice.choice(MODELS),
                "max_usage": _usage(dice) if by_usage else None,
                "amount": None if by_usage else _amount(dice),
                "ttl_s": dice.randint(1, 90),
                "accept_partial": dice.random() < 0.5,
            }
        case "extend":
            fields |= {
                "reservation": _made(dice, asked, account, "reserve") or _hold(dice),
                "amount": _amount(dice),
                "ttl_s": dice.randint(1, 90),
            }
        case "settle":
            fields |= {
                "request_id": dice.choice([own, _debit(dice)]),
                "reservation": _made(dice, asked, account, "reserve") or _hold(dice),
                "usage": _usage(dice),
                "final": dice.random() < 0.6,
            }
        case "release":
            fields |= {"reservation": _made(dice, asked, account, "reserve") or _hold(dice)}
        case "debit":
            fields |= {
                "request_id": _debit(dice),
                "model": dice.choice(MODELS),
                "usage": _usage(dice),
                "on_insufficient": dice.choice(["refuse", "overdraw"]),
            }
        case "reverse":
            fields |= {
                "request_id": dice.choice([own, f"v{dice.randrange(3)}"]),
                "debit": _made(dice, asked, account, "debit", "settle") or _debit(dice),
                "amount": dice.choice([None, _amount(dice)]),
            }
        case "void_grant":
            fields |= {"grant": dice.choice(["g", f"g{dice.randrange(6)}"])}
        case "set_credit_limit":
            fields |= {"credit_limit": dice.randrange(2_000_000)}
    return fields


def _made(dice: Random, asked: Sequence[dict[str, Any]], account: str, *commands: str) -> str | None:
    """The name of something that an earlier command was to make, mostly."""
    names = [f["request_id"] for f in asked if f["account"] == account and f["command"] in commands]
    return dice.choice(names) if names and dice.random() < 0.8 else None


def _hold(dice: Random) -> str:
    return f"h{dice.randrange(8)}"


def _debit(dice: Random) -> str:
    """Sometimes a name that a reversal gives to a grant as well: those of debits and of grants are not the same."""
    return f"d{dice.randrange(8)}" if dice.random() < 0.9 else f"v{dice.randrange(3)}/0"


def _usage(dice: Random) -> dict[str, int]:
    if dice.random() < 0.05:
        return {"input": 100_000 + dice.randrange(3), "output": dice.randrange(3)}  # at the edge of a tier
    classes = {"input": 2000, "cached_input": 1000, "output": 200}
    return {name: dice.randrange(1, most) for name, most in classes.items() if dice.random() < 0.7}


def _amount(dice: Random) -> int:
    return dice.choice([1, dice.randrange(1, 10_000), dice.randrange(1, 3_000_000)])


def _occurred_at(dice: Random, now: datetime) -> str | None:
    if dice.random() < 0.7:
        return None
    seconds = dice.choice([-5, -20, -60, -3600, 1, 30, 61, 200, -35 * 86_400 - 1])
    return (now + timedelta(seconds=seconds)).isoformat()


def _expires_at(dice: Random, now: datetime) -> str | None:
    if dice.random() < 0.4:
        return None
    return (now + timedelta(seconds=dice.choice([1, 20, 60, 300, -1]))).isoformat()
