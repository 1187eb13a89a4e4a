"""Reads a trace file line by line: its format by its content, its broken lines counted, the rest goes on.

Bounded whatever the file holds: no line is held beyond LINE_BYTES_MAX, no more than BROKEN_KEPT_MAX
complaints are kept. It must know nothing of what is done with the calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tokengrid.traces.azure import AzureLines, is_header
from tokengrid.traces.call import BadLine, BrokenLine, Call, UnreadableTrace
from tokengrid.traces.mooncake import MooncakeLines, is_line

LINE_BYTES_MAX = 256 * 1024  # two million input tokens in blocks of 512 are 40 KiB of ids
BROKEN_KEPT_MAX = 100
DETECT_LINES_MAX = 20  # a file whose first lines are all something else is something else


class Reader:
    """Iterates over the calls of a file, once. `broken` and `broken_count` grow as it goes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.broken: list[BrokenLine] = []
        self.broken_count = 0
        self._format, self._header_line = _detect(path)

    @property
    def format(self) -> str:
        """`azure2023` or `mooncake`."""
        return self._format.name

    def __iter__(self) -> Iterator[Call]:
        try:
            with self.path.open("rb") as file:
                for number, raw in enumerate(_lines(file), start=1):
                    if number <= self._header_line or (raw is not None and not raw.strip()):
                        continue
                    try:
                        call = self._format.parse(_text(raw))
                    except BadLine as bad:
                        self._complain(number, str(bad))
                        continue
                    yield call
        except OSError as error:
            raise UnreadableTrace(f"The trace {self.path} cannot be read: {error.strerror or error}.") from error

    def _complain(self, number: int, reason: str) -> None:
        self.broken_count += 1
        if len(self.broken) < BROKEN_KEPT_MAX:
            self.broken.append(BrokenLine(number, reason))


def read(path: Path | str) -> Reader:
    """The calls of a trace file. Raises UnreadableTrace, in one sentence, if there is none or it is no trace."""
    return Reader(Path(path))


def _detect(path: Path) -> tuple[AzureLines | MooncakeLines, int]:
    """The parser, and how many lines come before the first call (the header's number, or 0)."""
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(_lines(file), start=1):
                if number > DETECT_LINES_MAX:
                    break
                try:
                    text = _text(raw)
                except BadLine:
                    continue
                if is_header(text):
                    return AzureLines(text), number
                if is_line(text):
                    return MooncakeLines(), 0
    except OSError as error:
        raise UnreadableTrace(f"The trace {path} cannot be read: {error.strerror or error}.") from error
    raise UnreadableTrace(
        f"{path} is no trace of a known format: neither Azure 2023 CSV (TIMESTAMP,ContextTokens,GeneratedTokens) "
        "nor Mooncake JSON lines (timestamp, input_length, output_length, hash_ids)."
    )


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """The lines of a file; None stands for one that is too long, which is passed over in bounded pieces."""
    while raw := file.readline(LINE_BYTES_MAX):
        if raw.endswith(b"\n") or len(raw) < LINE_BYTES_MAX:
            yield raw
            continue
        while raw and not raw.endswith(b"\n"):
            raw = file.readline(LINE_BYTES_MAX)
        yield None


def _text(raw: bytes | None) -> str:
    if raw is None:
        raise BadLine(f"it is longer than {LINE_BYTES_MAX} bytes")
    try:
        return raw.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise BadLine("it is not UTF-8 text") from None
