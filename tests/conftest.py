"""For all tests: a cooperative process, printed seeds, and the servers' fixtures."""

import shared.messaging.patch  # isort: skip  # noqa: F401 - before anything else that does I/O

import gc
import os
import random
from typing import Any

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("tests.messaging_behaviour", "tests.unit.quota_stories")
pytest_plugins = ["tests.fixtures_servers", "tests.fixtures_archive", "tests.fixtures_migrations"]

SEED = int(os.environ.get("TOKENGRID_TEST_SEED", random.SystemRandom().randrange(2**32)))

# A busy machine is no failure of the code; a failing example can be pasted back.
settings.register_profile("tokengrid", deadline=None, print_blob=True)
settings.load_profile("tokengrid")


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is there now is there to the end: the collector need not look at it after every test, 7 % of the fast ones'
    time."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.line(f"again with TOKENGRID_TEST_SEED={SEED}")


@pytest.fixture
def seed() -> int:
    """The seed of this run's random tests; printed at its end, and set by the variable named there."""
    return SEED
