"""What is done beside us is done in order, by one at a time, and never goes on after we left."""

from __future__ import annotations

import threading

import pytest

from shared.eventstore.beside import Beside

DEADLINE_S = 10


@pytest.mark.parametrize("threaded", [True, False])
def test_all_is_done_in_order_when_it_is_left(threaded: bool) -> None:
    done: list[int] = []
    with Beside(threaded) as beside:
        for number in range(50):
            beside.do(done.append, number)
        assert beside.ask(len, done) == 50
        beside.do(done.append, 50)
    assert done == list(range(51))


def test_we_go_on_while_it_is_done() -> None:
    go_on, ours = threading.Event(), threading.current_thread()
    threads: list[threading.Thread] = []

    def wait() -> None:
        threads.append(threading.current_thread())
        assert go_on.wait(DEADLINE_S)

    with Beside(threaded=True) as beside:
        beside.do(wait)
        go_on.set()  # nobody would, if we were waiting
    assert threads != [ours]


@pytest.mark.parametrize("threaded", [True, False])
@pytest.mark.parametrize("then", ["do", "ask", "leave"])
def test_what_fails_is_raised_and_nothing_is_done_after_it(threaded: bool, then: str) -> None:
    done: list[int] = []

    def work() -> None:
        with Beside(threaded) as beside:
            beside.do(divmod, 1, 0)
            if then != "leave":
                getattr(beside, then)(done.append, 1)

    with pytest.raises(ZeroDivisionError):
        work()
    assert not done


def test_what_was_begun_ends_before_our_own_failure_is_seen() -> None:
    go_on, ended = threading.Event(), threading.Event()

    def begun() -> None:
        assert go_on.wait(DEADLINE_S)
        ended.set()

    def work() -> None:
        with Beside(threaded=True) as beside:
            beside.do(begun)
            threading.Timer(0.05, go_on.set).start()
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert ended.is_set()
