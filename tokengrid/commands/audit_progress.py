"""How far a replay has come, on stderr: a bar with the rate, one line for each log, and one for its report."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text


class Rate:
    """Use it as a context; `update` is the replay's `progress`."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,} of {task.total:,} {task.fields[unit]}"),
            _Speed(),
            console=Console(stderr=True),
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def update(self, log: str, done: int, total: int, unit: str = "events") -> None:
        if log not in self._tasks:
            self._tasks[log] = self._progress.add_task(log, total=total, unit=unit)
        self._progress.update(self._tasks[log], completed=done, total=total)

    def written(self, done: int, total: int) -> None:
        """Bills of the report."""
        self.update("pages", done, total, "bills")

    def close(self) -> None:
        """Take the bars away."""
        self._progress.stop()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{int(speed):,} {task.fields['unit']}/s" if speed else "")
