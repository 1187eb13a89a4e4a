"""A deployment's circuit and time to first token, driven by instants that the tests choose."""

from __future__ import annotations

import pytest

from services.routing.domain.health import TTFT_AGE_MAX_MS, TTFT_SAMPLES_MAX, Health, Rules, Ttft

T0 = 1_750_000_000_000
SECOND = 1_000
RULES = Rules(failures_max=3, samples_min=10, error_share_percent=50, cooldown_ms=5_000, cooldown_max_ms=20_000)


def broken(at_ms: int = T0) -> Health:
    """A circuit that three errors in a row have just opened."""
    health = Health(RULES)
    for n in range(3):
        health.observe(f"c{n}", "error", at_ms)
    return health


def recovered(health: Health, at_ms: int) -> None:
    health.routed("probe", at_ms, at_ms + 60_000)
    health.observe("probe", "ok", at_ms)


def test_a_new_deployment_is_taken_to_be_healthy() -> None:
    health = Health(RULES)
    assert health.admits(T0)
    assert health.state(T0) == "closed"


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        (["error"] * 2, "closed"),
        (["error"] * 3, "open"),
        (["error", "error", "ok", "error", "error"], "closed"),  # not in a row
        (["throttled"] * 100, "closed"),  # 429 is load
        (["error", "throttled", "error", "cancelled", "error"], "open"),  # neither success nor failure
        (["cancelled"] * 100, "closed"),
        (["ok", "ok", "error", "error"] * 2 + ["ok", "error"], "open"),  # 5 of 10: the share
        (["ok", "ok", "error", "error"] * 2 + ["ok"], "closed"),  # 4 of 9: too few calls to say
        (["ok"] * 6 + ["error"] * 2 + ["ok"] * 4, "closed"),  # 2 of 12
    ],
)
def test_what_opens_a_circuit(outcomes: list[str], state: str) -> None:
    health = Health(RULES)
    for n, outcome in enumerate(outcomes):
        health.observe(f"c{n}", outcome, T0 + n)  # type: ignore[arg-type]
    assert health.state(T0 + len(outcomes)) == state


def test_errors_that_have_moved_out_of_the_window_do_not_count() -> None:
    health = Health(RULES)
    for n in range(8):
        health.observe(f"early{n}", "error" if n % 2 else "ok", T0)
    later = T0 + RULES.window_ms + RULES.bucket_ms
    health.observe("late", "error", later)
    health.observe("later", "ok", later)
    assert health.error_share_percent(later) == 50
    assert health.state(later) == "closed"


def test_an_open_circuit_admits_nothing_before_the_end_of_its_cooldown() -> None:
    health = broken()
    assert not health.admits(T0 + 5 * SECOND - 1)
    assert health.state(T0 + 5 * SECOND) == "half-open"
    assert health.admits(T0 + 5 * SECOND)


def test_one_probe_at_a_time() -> None:
    health = broken()
    health.routed("probe", T0 + 5 * SECOND, T0 + 300 * SECOND)
    assert not health.admits(T0 + 6 * SECOND)


@pytest.mark.parametrize("outcome", ["throttled", "cancelled"])
def test_a_probe_that_says_nothing_makes_room_for_another(outcome: str) -> None:
    health = broken()
    health.routed("probe", T0 + 5 * SECOND, T0 + 300 * SECOND)
    health.observe("probe", outcome, T0 + 6 * SECOND)  # type: ignore[arg-type]
    assert health.state(T0 + 6 * SECOND) == "half-open"
    assert health.admits(T0 + 6 * SECOND)


def test_a_probe_of_a_crashed_caller_is_given_up() -> None:
    health = broken()
    health.routed("probe", T0 + 5 * SECOND, T0 + 300 * SECOND)
    assert not health.admits(T0 + 35 * SECOND - 1)
    assert health.admits(T0 + 35 * SECOND)


def test_a_probes_success_closes_the_circuit() -> None:
    health = broken()
    recovered(health, T0 + 5 * SECOND)
    assert health.state(T0 + 5 * SECOND) == "closed"
    assert health.consecutive_failures == 0


def test_what_calls_from_before_report_does_not_decide_a_probe() -> None:
    health = broken()
    health.routed("probe", T0 + 5 * SECOND, T0 + 300 * SECOND)
    health.observe("old", "ok", T0 + 6 * SECOND)
    assert health.state(T0 + 6 * SECOND) == "half-open"
    health.observe("older", "error", T0 + 7 * SECOND)
    assert health.state(T0 + 7 * SECOND) == "half-open"


def test_each_failing_probe_doubles_the_cooldown_up_to_the_longest() -> None:
    health, now, cooldowns = broken(), T0, []
    for _ in range(4):
        until = health.open_until_ms()
        assert until is not None
        cooldowns.append((until - now) // SECOND)
        now = until
        health.routed("probe", now, now + 60_000)
        health.observe("probe", "error", now)
    assert cooldowns == [5, 10, 20, 20]


@pytest.mark.parametrize(("pause_s", "cooldown_s"), [(60, 10), (601, 5)])
def test_a_relapse_goes_on_with_a_longer_cooldown(pause_s: int, cooldown_s: int) -> None:
    health = broken()
    recovered(health, T0 + 5 * SECOND)
    now = T0 + (5 + pause_s) * SECOND
    for n in range(3):
        health.observe(f"again{n}", "error", now)
    assert health.open_until_ms() == now + cooldown_s * SECOND


def test_throttled_counts_as_load_for_a_while() -> None:
    health = Health(RULES)
    health.observe("c", "throttled", T0)
    assert health.throttled(T0 + 5 * SECOND - 1)
    assert not health.throttled(T0 + 5 * SECOND)


# --- time to first token -----------------------------------------------------------------------
def test_too_few_samples_say_nothing() -> None:
    ttft = Ttft()
    for _ in range(4):
        ttft.add(100, T0)
    assert ttft.percentile(T0) is None


@pytest.mark.parametrize(("percent", "expected"), [(50, 500), (90, 900), (91, 1000), (100, 1000)])
def test_the_percentile_is_the_nearest_rank(percent: int, expected: int) -> None:
    ttft = Ttft()
    for ms in (700, 100, 1000, 300, 500, 200, 900, 400, 800, 600):
        ttft.add(ms, T0)
    assert ttft.percentile(T0, percent) == expected


def test_only_the_latest_samples_count() -> None:
    ttft = Ttft()
    for _ in range(TTFT_SAMPLES_MAX):
        ttft.add(9_000, T0)
    for _ in range(TTFT_SAMPLES_MAX):
        ttft.add(100, T0 + 1)
    assert ttft.percentile(T0 + 1, 100) == 100


def test_old_samples_are_forgotten() -> None:
    ttft = Ttft()
    for _ in range(10):
        ttft.add(9_000, T0)
    assert ttft.percentile(T0 + TTFT_AGE_MAX_MS - 1) == 9_000
    assert ttft.percentile(T0 + TTFT_AGE_MAX_MS) is None


def test_a_failed_calls_time_is_not_measured() -> None:
    health = Health(RULES)
    for n in range(10):
        health.observe(f"c{n}", "throttled", T0, ttft_ms=1)
    assert health.ttft.percentile(T0) is None
