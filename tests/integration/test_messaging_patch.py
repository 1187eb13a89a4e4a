"""A query makes only its own green thread wait.

psycopg calls the setting that does it a testing option: this test says whether it still holds.
"""

from time import monotonic

import eventlet
import psycopg
import pytest
from sqlalchemy import create_engine, text

pytestmark = pytest.mark.servers

QUERY_S = 0.5


def test_other_green_threads_run_while_a_query_waits(postgres_database: str) -> None:
    assert psycopg.pq.__impl__ == "binary", "the pure Python implementation would prove nothing"
    engine = create_engine(postgres_database)
    longest_stall_s, last = 0.0, monotonic()

    def tick() -> None:
        nonlocal longest_stall_s, last
        while True:
            eventlet.sleep(0.005)
            longest_stall_s, last = max(longest_stall_s, monotonic() - last), monotonic()

    def query() -> None:
        with engine.connect() as connection:
            connection.execute(text(f"select pg_sleep({QUERY_S})"))

    with engine.connect():  # connecting is not what is measured
        ticking = eventlet.spawn(tick)
        begun = monotonic()
        for thread in [eventlet.spawn(query) for _ in range(3)]:
            thread.wait()
        took_s = monotonic() - begun
        ticking.kill()
    engine.dispose()
    assert took_s < 3 * QUERY_S, "the queries ran one after another"
    assert longest_stall_s < QUERY_S / 2
