"""kombu's AMQP transport, made cheap for many small messages: it reads many frames at a time, and writes at once.

py-amqp asks the socket nine times for each delivery, and makes two objects of it with every property in a
dictionary. Here the socket is read by 64 KiB, and a consumer may name a taker, which gets a `Delivery` straight
from the frames; what it does not take goes the stock way, frame by frame. It must know nothing of requests.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any

from amqp.exceptions import UnexpectedFrame
from amqp.method_framing import frame_handler
from amqp.serialization import loads
from amqp.transport import SSLTransport, TCPTransport
from eventlet.semaphore import Semaphore
from kombu.message import Message
from kombu.transport import pyamqp

READ_BYTES = 65_536
METHOD, HEADER, BODY, FRAME_END = 1, 2, 3, 0xCE
_frame = Struct(">BHI")
_content = Struct(">HHQH")  # class, weight, body size, property flags
_long = Struct(">Q")
_DELIVER = b"\x00\x3c\x00\x3c"
_PUBLISH = b"\x00\x3c\x00\x28\x00\x00"
_BASIC = 60
_TYPE, _ENCODING, _HEADERS, _MODE, _PRIORITY, _CORRELATION, _REPLY_TO, _EXPIRATION = (1 << n for n in range(15, 7, -1))
# What an answer says of itself: JSON in UTF-8, transient.
_JSON = b"\x10application/json\x05utf-8\x01"
_JSON_FLAGS = _TYPE | _ENCODING | _MODE | _CORRELATION


class Delivery:
    """A message as it was delivered: what routes and answers it, and its body, all as bytes."""

    __slots__ = (
        "body",
        "channel",
        "content_type",
        "correlation_id",
        "encoding",
        "expiration",
        "header",
        "key",
        "message",
        "reply_to",
        "table",
        "tag",
    )

    def __init__(self, tag: int, key: bytes) -> None:
        self.tag, self.key = tag, key
        self.channel: Any = None
        self.content_type = self.encoding = self.correlation_id = self.reply_to = self.expiration = self.table = b""
        self.body = b""
        self.header = b""  # the whole content header frame
        self.message: Message | None = None  # kombu's, if it came the stock way

    @classmethod
    def of(cls, message: Message) -> Delivery:
        """The same of a message that came the stock way; without `header` and `table`."""
        info, properties = message.delivery_info, message.properties
        made = cls(message.delivery_tag, info["routing_key"].encode())
        made.message, made.channel = message, message.channel
        made.body = message.body.encode() if isinstance(message.body, str) else message.body
        for name in ("content_type", "correlation_id", "reply_to", "expiration"):
            value = properties.get(name)
            setattr(made, name, value.encode() if isinstance(value, str) else b"")
        return made

    def read_header(self, header: bytes) -> None:
        """Take over what a content header frame says. Raises IndexError or struct.error for one cut short."""
        self.header = header
        flags = _content.unpack_from(header)[3]
        at = _content.size
        if flags & _TYPE:
            end = at + 1 + header[at]
            self.content_type, at = header[at + 1 : end], end
        if flags & _ENCODING:
            end = at + 1 + header[at]
            self.encoding, at = header[at + 1 : end], end
        if flags & _HEADERS:
            end = at + 4 + int.from_bytes(header[at : at + 4], "big")
            self.table, at = header[at:end], end
        if flags & _MODE:
            at += 1
        if flags & _PRIORITY:
            at += 1
        if flags & _CORRELATION:
            end = at + 1 + header[at]
            self.correlation_id, at = header[at + 1 : end], end
        if flags & _REPLY_TO:
            end = at + 1 + header[at]
            self.reply_to, at = header[at + 1 : end], end
        if flags & _EXPIRATION:
            end = at + 1 + header[at]
            self.expiration = header[at + 1 : end]

    @property
    def headers(self) -> dict[str, Any]:
        """The message's headers. Raises an Exception for a table that cannot be read."""
        if self.message is not None:
            return dict(self.message.headers)
        return dict(loads("F", self.table, 0)[0][0]) if self.table else {}

    @property
    def expires_in_s(self) -> float | None:
        """How long its sender waits, as he said when he sent it; None: he did not say."""
        return int(self.expiration) / 1000 if self.expiration.isdigit() else None

    @property
    def plain(self) -> bool:
        """Whether the body is what the sender wrote: not compressed, and in UTF-8."""
        if self.message is not None:
            return True  # kombu has seen to it
        return b"compression" not in self.table and self.encoding in (b"utf-8", b"")


Taker = Callable[[Delivery], bool]


# --- frames out ------------------------------------------------------------------------------
def _short(text: bytes) -> bytes:
    return bytes((len(text),)) + text


def json_header(size: int, correlation_id: bytes) -> bytes:
    """The content header of a JSON answer of `size` bytes."""
    return _content.pack(_BASIC, 0, size, _JSON_FLAGS) + _JSON + _short(correlation_id)


def publish_frames(
    channel_id: int, frame_max: int, exchange: bytes, key: bytes, header: bytes, body: bytes, mandatory: bool = False
) -> bytes:
    """The frames of one message. Raises ValueError for a key of more than 255 bytes."""
    method = _PUBLISH + _short(exchange) + _short(key) + (b"\x01" if mandatory else b"\x00")
    pack = _frame.pack
    parts = [pack(METHOD, channel_id, len(method)), method, b"\xce", pack(HEADER, channel_id, len(header)), header]
    room = frame_max - 8
    for start in range(0, len(body), room):
        part = body[start : start + room]
        parts += (b"\xce", pack(BODY, channel_id, len(part)), part)
    parts.append(b"\xce")
    return b"".join(parts)


# --- frames in -------------------------------------------------------------------------------
class _Frames:
    """Puts frames together to deliveries for the takers, and hands all others on as they come."""

    def __init__(self, connection: Connection, callback: Any) -> None:
        self._connection, self._takers = connection, connection.takers
        self._stock = frame_handler(connection, callback)
        self._coming: dict[int, _Coming] = {}

    def __call__(self, frame: tuple[int, int, bytes]) -> Any:
        """Returns something true when a method is complete, as py-amqp's own."""
        kind, number, payload = frame
        coming = self._coming.get(number)
        if kind == METHOD:
            if payload.startswith(_DELIVER):
                end = 5 + payload[4]
                taker = self._takers.get(payload[5:end])
                if taker is not None:
                    self._connection.bytes_recv += 1  # a sign of life, as good as a heartbeat
                    self._coming[number] = _Coming(taker, frame, end)
                    return False
        elif coming is not None and kind in (HEADER, BODY):
            if not coming.add(frame):
                return False
            del self._coming[number]
            if not coming.taker(coming.delivery):
                for each in coming.frames:
                    self._stock(each)
            return True
        return self._stock(frame)


class _Coming:
    """A delivery of which not all frames are there."""

    __slots__ = ("_missing", "delivery", "frames", "taker")

    def __init__(self, taker: Taker, frame: tuple[int, int, bytes], at: int) -> None:
        """`at`: where the arguments go on behind the consumer tag: delivery tag, redelivered, exchange, key."""
        payload = frame[2]
        key = at + 10 + payload[at + 9]
        self.taker = taker
        self.delivery = Delivery(_long.unpack_from(payload, at)[0], payload[key + 1 : key + 1 + payload[key]])
        self.frames = [frame]
        self._missing = 0

    def add(self, frame: tuple[int, int, bytes]) -> bool:
        """Whether it is complete now."""
        self.frames.append(frame)
        kind, _number, payload = frame
        if kind == HEADER:
            self._missing = _content.unpack_from(payload)[2]
            self.delivery.read_header(payload)
        else:
            self._missing -= len(payload)
        if self._missing > 0:
            return False
        bodies = self.frames[2:]
        self.delivery.body = bodies[0][2] if len(bodies) == 1 else b"".join(each[2] for each in bodies)
        return True


class _Whole:
    """Writes by several green threads do not mix, however long one of them has to wait for the socket."""

    def _setup_transport(self) -> None:
        super()._setup_transport()  # type: ignore[misc]
        self._writing = Semaphore(1)

    def write(self, frames: Any) -> None:
        with self._writing:
            super().write(frames)  # type: ignore[misc]


class _Plain(_Whole, TCPTransport):  # type: ignore[misc]
    """Over TCP, with a buffer for what has been read and not yet asked for."""

    def _setup_transport(self) -> None:
        super()._setup_transport()
        self._read_so_far, self._at = b"", 0

    @property
    def has_frame(self) -> bool:
        """Whether a whole frame has been read already."""
        left = len(self._read_so_far) - self._at
        return left >= 8 and left >= 8 + _frame.unpack_from(self._read_so_far, self._at)[2]

    def read_frame(self, unpack: object = None) -> tuple[int, int, bytes]:
        """The next frame: type, channel, payload. A timeout loses nothing of what has been read."""
        del unpack
        buffer, at = self._read_so_far, self._at
        while True:
            left = len(buffer) - at
            if left >= 8:
                kind, channel, size = _frame.unpack_from(buffer, at)
                if left >= 8 + size:
                    end = at + 7 + size
                    if buffer[end] != FRAME_END:
                        raise UnexpectedFrame(f"Received frame_end {buffer[end]:#04x} while expecting 0xce")
                    self._at = end + 1
                    return kind, channel, buffer[at + 7 : end]
            buffer, at = self._more(buffer[at:], 8 if left < 8 else 8 + size), 0
            self._read_so_far, self._at = buffer, 0

    def _more(self, buffer: bytes, needed: int) -> bytes:
        """`buffer` and at least as much as is needed behind it. What is read before a timeout is kept."""
        parts, length = [buffer], len(buffer)
        try:
            while length < needed:
                part = self._quick_recv(max(READ_BYTES, needed - length))
                if not part:
                    self.connected = False
                    raise OSError("Server unexpectedly closed connection")
                parts.append(part)
                length += len(part)
        except TimeoutError:
            self._read_so_far, self._at = b"".join(parts), 0
            raise
        return b"".join(parts)


class _Encrypted(_Whole, SSLTransport):  # type: ignore[misc]
    """Over TLS, which has a buffer of its own."""

    has_frame = False


class Connection(pyamqp.Connection):
    """py-amqp's connection. `takers`: by consumer tag, who is offered its deliveries first."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.takers: dict[bytes, Taker] = {}
        super().__init__(*arguments, frame_handler=_Frames, **options)

    def Transport(
        self,
        host: str,
        connect_timeout: float,
        ssl: Any = False,
        read_timeout: float | None = None,
        write_timeout: float | None = None,
        **options: Any,
    ) -> Any:
        options |= {"connect_timeout": connect_timeout, "read_timeout": read_timeout, "write_timeout": write_timeout}
        return _Encrypted(host, ssl=ssl, **options) if ssl else _Plain(host, **options)

    def drain_events(self, timeout: float | None = None) -> None:
        """Wait for something, then do all that has been read along with it."""
        super().drain_events(timeout)
        while (transport := self._transport) is not None and transport.has_frame:
            self.on_inbound_frame(transport.read_frame())


class Transport(pyamqp.Transport):
    """kombu's entry to this module, as `Connection.transport_cls`."""

    Connection = Connection
