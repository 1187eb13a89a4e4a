"""Leases of concurrent calls and of tokens per minute."""

from __future__ import annotations

import random

from services.routing.domain.capacity import SLACK, Capacity, Lease

T0 = 1_750_000_000_000 // 5_000 * 5_000  # on a bucket's edge
SECOND = 1_000


def lease(call: str, deployment: str = "d", tokens: int = 100, at: int = T0, ttl_s: int = 300) -> Lease:
    return Lease(call, deployment, tokens, at, at + ttl_s * SECOND)


def test_a_lease_takes_a_call_and_its_tokens() -> None:
    capacity = Capacity()
    capacity.take(lease("a"))
    capacity.take(lease("b", tokens=50))
    assert (capacity.calls("d"), capacity.tokens("d", T0)) == (2, 150)


def test_a_reported_call_gives_back_its_place_and_the_tokens_it_did_not_use() -> None:
    capacity = Capacity()
    capacity.take(lease("a", tokens=100))
    capacity.end("a", used_tokens=30)
    assert (capacity.calls("d"), capacity.tokens("d", T0)) == (0, 30)


def test_a_crashed_callers_lease_comes_back_at_its_expiry() -> None:
    capacity = Capacity()
    capacity.take(lease("a", ttl_s=30))
    capacity.expire(T0 + 30 * SECOND - 1)
    assert capacity.calls("d") == 1
    capacity.expire(T0 + 30 * SECOND)
    assert capacity.calls("d") == 0


def test_tokens_leave_with_the_minute() -> None:
    capacity = Capacity()
    capacity.take(lease("a"))
    assert capacity.tokens("d", T0 + 59 * SECOND) == 100
    assert capacity.tokens("d", T0 + 60 * SECOND) == 0


def test_a_late_report_does_not_correct_another_minute() -> None:
    capacity = Capacity()
    capacity.take(lease("a", tokens=100))
    capacity.take(lease("b", tokens=70, at=T0 + 90 * SECOND))
    capacity.end("a", used_tokens=1)
    assert capacity.tokens("d", T0 + 90 * SECOND) == 70


def test_a_call_has_one_lease() -> None:
    capacity = Capacity()
    capacity.take(lease("a", "first"))
    capacity.take(lease("a", "second"))
    assert (capacity.calls("first"), capacity.calls("second")) == (0, 1)


def test_a_renewed_lease_outlives_the_first_ones_expiry() -> None:
    capacity = Capacity()
    capacity.take(lease("a", ttl_s=30))
    capacity.take(lease("a", ttl_s=60))
    capacity.expire(T0 + 30 * SECOND)
    assert capacity.calls("d") == 1


def test_ending_twice_ends_once() -> None:
    capacity = Capacity()
    capacity.take(lease("a"))
    capacity.end("a")
    assert capacity.end("a") is None
    assert capacity.calls("d") == 0


def test_memory_does_not_grow_with_the_calls_that_are_over() -> None:
    capacity = Capacity()
    for n in range(10 * SLACK):
        capacity.take(lease(f"c{n}"))
        capacity.end(f"c{n}")
    assert len(capacity._expiries) <= SLACK + 1


def test_against_a_plain_count_in_any_order(seed: int) -> None:
    chance = random.Random(seed)
    capacity, live, now = Capacity(), {}, T0
    for _ in range(5_000):
        now += chance.randrange(2_000)
        call = f"c{chance.randrange(40)}"
        if chance.random() < 0.6:
            taken = lease(call, chance.choice("xyz"), 10, now, chance.randrange(1, 60))
            capacity.take(taken)
            live[call] = taken
        else:
            capacity.end(call)
            live.pop(call, None)
        capacity.expire(now)
        live = {name: one for name, one in live.items() if one.expires_ms > now}
        for name in "xyz":
            assert capacity.calls(name) == sum(one.deployment == name for one in live.values())
