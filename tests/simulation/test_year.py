"""A year of two hundred subscribers, the clock driven: all invariants after every day, an audit after every month."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from shared.clock import SHANGHAI
from tests.folders import brief_folder
from tests.simulation.year import FIRST_DAY, Year, month_before
from tests.simulation.year_invariants import Invariants

SUBSCRIBERS = 200
DAYS = 368  # a leap year, and two days to close its last month
ACTIONS = int(os.environ.get("TOKENGRID_SOAK_ACTIONS", "12"))  # a day


@pytest.mark.timeout(600)
def test_a_year_of_life(seed: int) -> None:
    with brief_folder() as folder:
        live(Path(folder), seed)


def live(folder: Path, seed: int) -> None:
    year = Year(folder, seed, SUBSCRIBERS)
    invariants = Invariants(year)
    try:
        for number in range(DAYS):
            year.day(ACTIONS)
            invariants.after_day()
            today = (FIRST_DAY + timedelta(days=number + 1)).astimezone(SHANGHAI)
            if today.day == 2:
                year.down_until = year.clock.now  # people see to it
                year.work()
                year.close_month(month_before(year.clock.now))
                invariants.after_month(month_before(year.clock.now))
        invariants.of_the_year()
    finally:
        year.close()
