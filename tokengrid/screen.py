"""What a person sees while long work goes on: progress bars on a terminal, plain lines elsewhere, nothing if quiet."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Tick = Callable[[int], None]


class Stage(NamedTuple):
    """A chapter that is done: how much of what, in how many seconds."""

    title: str
    done: int
    unit: str
    seconds: float

    @property
    def per_second(self) -> int:
        return round(self.done / self.seconds) if self.seconds > 0 else 0


class Screen:
    """`stage` for each chapter; `stages` are those that are done."""

    def __init__(self, console: Console, quiet: bool = False) -> None:
        self.console, self.quiet = console, quiet
        self.stages: list[Stage] = []

    @contextmanager
    def stage(self, title: str, unit: str, total: int | None = None) -> Iterator[Tick]:
        """`tick(count)` tells how much is done so far."""
        began, done = monotonic(), 0
        if self.quiet or not self.console.is_terminal:

            def note(count: int) -> None:
                nonlocal done
                done = count

            yield note
        else:
            with Progress(
                SpinnerColumn(finished_text="✓"),
                TextColumn("{task.description}"),
                BarColumn(bar_width=32),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=self.console,
            ) as bars:
                task = bars.add_task(f"{title:<34}", total=total)

                def move(count: int) -> None:
                    nonlocal done
                    done = count
                    bars.update(task, completed=count)

                yield move
                bars.update(task, total=done, completed=done)
        stage = Stage(title, done, unit, monotonic() - began)
        self.stages.append(stage)
        if not self.quiet and not self.console.is_terminal:
            self.console.print(f"{title}: {done:,} {unit} in {stage.seconds:.1f} s", highlight=False)

    def say(self, line: str) -> None:
        if not self.quiet:
            self.console.print(line, highlight=False, soft_wrap=True)


def console_for(json: bool) -> Console:
    """Standard output; with `--json` that is for the program that asked, and people are told nothing."""
    return Console(file=sys.stdout, quiet=json)
