"""Lines of the Azure 2023 trace: TIMESTAMP,ContextTokens,GeneratedTokens[,Service,SourceRow].

The two original files have the first three columns; the merged form names the service as well. Times
have seven decimals (ticks of 100 ns) and no zone. It must not know about files.
"""

from __future__ import annotations

import re
from datetime import datetime

from tokengrid.traces.call import BadLine, Call, checked

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
KINDS = {"conv": "conversation", "code": "coding"}

_TIME = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:00)?\Z", re.ASCII)
_NUMBER = re.compile(r"\d{1,12}\Z", re.ASCII)


def is_header(line: str) -> bool:
    """Whether a line names the trace's columns."""
    return set(COLUMNS) <= set(_cells(line))


class AzureLines:
    """Parses the data lines behind a header; remembers the first call's time."""

    name = "azure2023"

    def __init__(self, header: str) -> None:
        cells = _cells(header)
        self._width = len(cells)
        self._time, self._given, self._output = (cells.index(column) for column in COLUMNS)
        self._service = cells.index("Service") if "Service" in cells else None
        self._start_ms: int | None = None

    def parse(self, line: str) -> Call:
        """Raises BadLine."""
        cells = _cells(line)
        if len(cells) != self._width:
            raise BadLine(f"it has {len(cells)} columns, the header {self._width}")
        service = "" if self._service is None else cells[self._service]
        if service and service not in KINDS:
            raise BadLine("its Service is neither conv nor code")
        at_ms = _milliseconds(cells[self._time])
        given, output = (_number(cells[index]) for index in (self._given, self._output))
        start_ms = at_ms if self._start_ms is None else self._start_ms
        call = checked(at_ms - start_ms, given, 0, output, KINDS.get(service, ""))
        self._start_ms = start_ms
        return call


def _cells(line: str) -> list[str]:
    return [cell.strip().strip('"') for cell in line.split(",")]


def _number(text: str) -> int:
    if not _NUMBER.match(text):
        raise BadLine("its token counts are not whole numbers")
    return int(text)


def _milliseconds(text: str) -> int:
    """Since year 1, cut to whole milliseconds. Integers all the way: a float holds no ticks at this size."""
    found = _TIME.match(text)
    if found is None:
        raise BadLine("its TIMESTAMP is not a time")
    try:
        whole = datetime.fromisoformat(found[1])
    except ValueError:
        raise BadLine("its TIMESTAMP is not a time") from None
    seconds = whole.toordinal() * 86_400 + whole.hour * 3600 + whole.minute * 60 + whole.second
    return seconds * 1000 + int((found[2] or "").ljust(3, "0")[:3])
