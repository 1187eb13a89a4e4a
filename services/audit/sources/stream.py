"""RabbitMQ's streams: every log as it was copied there. No service and no database is asked.

Each log is read up to where its stream ended when it was first asked for. What stands twice is dropped by its position;
if it is not the same, that is refused. What is missing is handed on, and found by whoever counts.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

import msgspec
import pika

from services.audit.sources.asked import Source, no_such_shard
from shared.errors import AuditFailed, MalformedCommand, Unavailable
from shared.messaging import streams
from shared.messaging.streams import Copied, Message, Offset, Reader

REMEMBERED = 20_000  # events: what stands twice does so within the last messages of a publisher that died

Row = tuple[int, str, int, str, str]


class StreamSource(Source):
    """All logs' streams over one connection."""

    def __init__(self, connection: pika.BlockingConnection, start: Offset = "first") -> None:
        """`start`: where reading begins (`first`, a message's number or a time); but for `first`, parts of logs."""
        self._connection = connection
        self._start = start
        self._logs: dict[str, _Stream | None] = {}

    def log_of(self, service: str, shard: int) -> str:
        for log in (service, f"{service}-{shard}") if shard == 0 else (f"{service}-{shard}",):
            if self._stream(log) is not None:
                return log
        raise no_such_shard(service, shard)

    def head(self, log: str) -> int:
        return self._known(log).head

    def events(self, log: str, after: int, limit: int) -> Sequence[Row]:
        return self._known(log).events(after, limit)

    def _known(self, log: str) -> _Stream:
        stream = self._stream(log)
        if stream is None:
            raise MalformedCommand(f"There is no stream of {log}.")
        return stream

    def _stream(self, log: str) -> _Stream | None:
        if log not in self._logs:
            try:
                self._logs[log] = _Stream(self._connection, log, self._start)
            except MalformedCommand:
                self._logs[log] = None
        return self._logs[log]


class _Stream:
    """One log. It is read forward; to read again, the messages' first positions are remembered."""

    def __init__(self, connection: pika.BlockingConnection, log: str, start: Offset) -> None:
        self._connection, self._log, self._start = connection, log, start
        last = streams.tail(connection, log)
        self._end = last[-1].offset if last else -1
        self.head = max((streams.decode_section(log, message)[-1].position for message in last), default=0)
        self._reader: Reader | None = None
        self._read_to = -1  # offset
        self._position = 0
        self._first: list[int] = []
        self._offsets: list[int] = []
        self._waiting: deque[Copied] = deque()
        self._taken = 0  # position of the last event that was handed out by reading on
        self._digests: dict[int, bytes] = {}

    def events(self, after: int, limit: int) -> list[Row]:
        if after < self._taken:
            return self._again(after, limit)
        rows: list[Row] = []
        while len(rows) < limit and (self._waiting or self._read_on()):
            while self._waiting and len(rows) < limit:
                copied = self._waiting.popleft()
                self._taken = copied.position
                if copied.position > after:
                    rows.append(msgspec.structs.astuple(copied))
        return rows

    def _read_on(self) -> bool:
        """Take in the next message; False at the end."""
        if self._read_to >= self._end or (isinstance(self._start, int) and self._start > self._end):
            return False
        if self._reader is None:
            self._reader = Reader(self._connection, self._log, self._start)
        message = self._reader.next(streams.ANSWER_S)
        if message is None:
            raise Unavailable(f"the stream of {self._log} does not go on behind message {self._read_to}")
        self._read_to = message.offset
        fresh = self._fresh(message)
        if fresh:
            self._first.append(fresh[0].position)
            self._offsets.append(message.offset)
        self._waiting.extend(fresh)
        if self._read_to >= self._end:
            self._reader.close()
        return True

    def _fresh(self, message: Message) -> list[Copied]:
        """What of a message was not there before."""
        fresh = []
        for copied in streams.decode_section(self._log, message):
            digest = hashlib.blake2b(msgspec.json.encode(copied), digest_size=16).digest()
            if copied.position <= self._position:
                if self._digests.get(copied.position, digest) != digest:
                    raise AuditFailed(
                        f"event {copied.position} of {self._log} stands twice in its stream, and differs in message "
                        f"{message.offset}"
                    )
                continue
            self._position = copied.position
            self._digests[copied.position] = digest
            fresh.append(copied)
        while len(self._digests) > REMEMBERED:
            del self._digests[next(iter(self._digests))]
        return fresh

    def _again(self, after: int, limit: int) -> list[Row]:
        """Events that were handed out before."""
        at = max(bisect_right(self._first, after + 1) - 1, 0)
        rows: list[Row] = []
        position = 0
        with streams.reading(self._connection, self._log, self._offsets[at]) as reader:
            while len(rows) < limit:
                message = reader.next(streams.ANSWER_S)
                if message is None:
                    raise Unavailable(f"the stream of {self._log} does not answer")
                for copied in streams.decode_section(self._log, message):
                    if after < copied.position <= self._taken and copied.position > position and len(rows) < limit:
                        position = copied.position
                        rows.append(msgspec.structs.astuple(copied))
                if message.offset >= min(self._read_to, self._end) or position >= self._taken:
                    break
        return rows
