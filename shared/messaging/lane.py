"""`@lane`: one method that serves the requests of many callers at once, for a commit shared by all of them.

    @lane("debit", "settle", "execute", place=shard_of_command)
    def work(self, shard: int, requests: list[Request]) -> list[bytes | Exception]: ...

Callers see ordinary RPC methods, `debit` and so on. Their requests go from the connection's buffer straight into
the lane's: no green thread and no worker for each. A batch runs in one worker, with the service's dependencies;
its answers are the JSON text of each result, or the error for that caller. They are sent in one write, and
acknowledged together.

Each shard of the service has a queue of its own besides, of which one process at a time is the owner (see
`shard_queues`): the others pass on to it what comes to them. Every request may come twice, and should the owner
be wrong about being the owner, the event log's unique positions decide. It must know nothing of what is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any, TypeVar

import eventlet
import msgspec
from eventlet.event import Event
from nameko.containers import WorkerContext
from nameko.exceptions import IncorrectSignature
from nameko.extensions import Entrypoint

from shared import telemetry
from shared.errors import LimitExceeded, SetupFailed, TokengridError, Unavailable
from shared.eventstore.requests import Request
from shared.messaging import codec, tracing
from shared.messaging.batches import Answer, Batches, Together, Waiting
from shared.messaging.parts import BATCH_METHOD, Parts, body_of, merged, split
from shared.messaging.rpc import RpcConsumer
from shared.messaging.shard_queues import ShardQueue, pass_on
from shared.messaging.transport import Delivery
from shared.messaging.wire import Wire, answer_body, settings_of


class _Envelope(msgspec.Struct):
    """A request's body. What is in the arguments is looked at by those who serve it."""

    args: list[msgspec.Raw]
    kwargs: msgspec.Raw


# The shard of a request or a command, by the JSON text of its fields and the number of shards; None: any will do.
PlaceOf = Callable[[msgspec.Raw, int], int | None]

_envelope = msgspec.json.Decoder(_Envelope)
_JSON = codec.CONTENT_TYPE.encode()
_OBJECT = ord("{")
_NOTHING = msgspec.Raw(b"")


class Lane(Entrypoint):  # type: ignore[misc]
    """The entrypoint behind `@lane`."""

    rpc_consumer = RpcConsumer()
    wire = Wire()

    def __init__(
        self, *methods: str, place: Callable[[msgspec.Raw, int], int | None] | None = None, **kwargs: Any
    ) -> None:
        """`methods`: what it answers to. `place`: a service with several shards needs it; it raises nothing."""
        self.methods = methods
        self._place = place
        super().__init__(expected_exceptions=TokengridError, **kwargs)

    def setup(self) -> None:
        service = self.container.service_name
        self.settings = settings_of(self.container.config)
        self.wire.setup()
        count = self.settings.shards(service)
        if (count > 1 and self._place is None) or self.rpc_consumer.takers:
            raise SetupFailed(f"{service} has several lanes, or {count} shards and no way to tell a request's shard.")
        self.names = {f"{service}.{method}".encode(): method for method in self.methods}
        self.rpc_consumer.register_provider(self)
        self.rpc_consumer.takers.update(dict.fromkeys(self.names, self))
        self.batches = [
            Batches(partial(self._serve, shard), self._spawn, self.settings.waiting_max) for shard in range(count)
        ]
        self.queues = [ShardQueue(self, shard) for shard in range(count)]
        for queue in self.queues:
            self.rpc_consumer.queue_consumer.register_provider(queue)
        self._refusals: Together[tuple[Delivery, Exception]] = Together(self._send_refusals, self._spawn)
        self._passed: Together[tuple[Delivery, bytes]] = Together(self._pass_on, self._spawn)

    def stop(self) -> None:
        """Returns when all that has come is answered and acknowledged."""
        stopping = [eventlet.spawn(self.rpc_consumer.queue_consumer.unregister_provider, each) for each in self.queues]
        self.rpc_consumer.unregister_provider(self)
        for each in stopping:
            each.wait()

    def _spawn(self, work: Callable[[], None]) -> None:
        self.container.spawn_managed_thread(work, identifier=f"lane {self.method_name}")

    # --- taking: called by the consuming green thread; nothing here may wait ------------------------
    def take(self, delivery: Delivery) -> bool:
        """Take a request from the service's own queue: serve it if its shard is ours, else pass it on."""
        method = self.names[delivery.key]
        if (arguments := self._arguments(method, delivery)) is None:
            return False
        shard = 0
        if arguments is _NOTHING:
            return True
        if len(self.queues) > 1:
            parts = split(arguments, self._place_of) if method == BATCH_METHOD else {}
            if len(parts) > 1:
                self._spawn(partial(self._answer_parts, delivery, parts))
                return True
            shard = next(iter(parts)) if parts else self._place_of(arguments) or 0
        if self.queues[shard].active or self.settings.embedded:
            self._add(shard, method, delivery)
        else:
            self._passed.add((delivery, self.queues[shard].routing_key(method).encode()))
        return True

    def take_for(self, shard: int, method: str, delivery: Delivery) -> bool:
        """Take a request from a shard's queue: whoever sent it there has seen to its being the right one."""
        if (arguments := self._arguments(method, delivery)) is None:
            return False
        if arguments is not _NOTHING:
            self._add(shard, method, delivery)
        return True

    def _place_of(self, fields: msgspec.Raw) -> int | None:
        assert self._place is not None
        return self._place(fields, len(self.queues))

    def _arguments(self, method: str, delivery: Delivery) -> msgspec.Raw | None:
        """The keyword arguments in a request; `_NOTHING` if it was refused; None if it cannot be read."""
        if delivery.content_type != _JSON or not delivery.reply_to or not delivery.plain:
            return None
        try:
            envelope = _envelope.decode(delivery.body)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        if memoryview(envelope.kwargs)[0] != _OBJECT:
            return None
        if envelope.args:
            self._refuse(delivery, IncorrectSignature(f"{method}() takes keyword arguments only"))
            return _NOTHING
        return envelope.kwargs

    def _add(self, shard: int, method: str, delivery: Delivery) -> None:
        try:
            self.batches[shard].add(Waiting(Request(method, delivery.body, _trace_of(delivery)), delivery))
        except TokengridError as busy:
            self._refuse(delivery, busy)

    # --- serving ---------------------------------------------------------------------------------
    def _serve(self, shard: int, batch: list[Waiting]) -> None:
        answers = self._run(shard, [each.request for each in batch])
        replies: list[tuple[Delivery, bytes]] = []
        for each, answer in zip(batch, answers, strict=True):
            if each.delivery is not None:
                replies.append((each.delivery, _encoded(answer)))
            elif each.answered is not None:
                each.answered(answer)
        self._reply(replies)
        if telemetry.active():
            for each, answer in zip(batch, answers, strict=True):
                self._record(each.request.method, each.at, answer)

    def _run(self, shard: int, requests: list[Request]) -> Sequence[Answer]:
        """One call of the method in a worker context of its own. Not from nameko's pool of workers: requests that
        take long must not keep the lane waiting."""
        outcome: list[Any] = [None, None]

        def handle_result(worker_ctx: Any, result: Any, exc_info: Any) -> tuple[Any, Any]:
            del worker_ctx
            outcome[:] = result, exc_info and exc_info[1]
            return result, exc_info

        container = self.container
        # The trace of a single request goes on; many are linked to the batch.
        data = {"traceparent": requests[0].trace} if len(requests) == 1 and requests[0].trace else {}
        context = WorkerContext(container, container.service_cls(), self, (shard, requests), {}, data=data)
        container._run_worker(context, handle_result)
        answers, error = outcome
        if error is None and (not isinstance(answers, Sequence) or len(answers) != len(requests)):
            error = TypeError(f"{self.method_name} did not return an answer for each of its requests")
        return [error] * len(requests) if error is not None else answers

    def _reply(self, replies: list[tuple[Delivery, bytes]]) -> None:
        if replies:
            self.wire.answer(replies)
            self.rpc_consumer.queue_consumer.settle([delivery for delivery, _body in replies])

    def _refuse(self, delivery: Delivery, error: Exception) -> None:
        self._refusals.add((delivery, error))

    def _send_refusals(self, refusals: Sequence[tuple[Delivery, Exception]]) -> None:
        self._reply([(delivery, _encoded(error)) for delivery, error in refusals])
        if telemetry.active():
            for delivery, error in refusals:
                self._record(delivery.key.rpartition(b".")[2].decode(), monotonic(), error)

    # --- what is not ours ------------------------------------------------------------------------
    def _pass_on(self, passed: Sequence[tuple[Delivery, bytes]]) -> None:
        consumer = self.rpc_consumer.queue_consumer
        deliveries = [delivery for delivery, _key in passed]
        try:
            pass_on(self.wire.caller.link, passed)
        except Unavailable:
            for delivery in deliveries:
                consumer.requeue_message(delivery)
        else:
            consumer.settle(deliveries)

    def _answer_parts(self, delivery: Delivery, parts: Parts) -> None:
        """A batch with commands of several shards: each shard's part is one transaction, of its own."""
        started_at = monotonic()
        count = sum(len(part) for part in parts.values())
        answer: Answer
        try:
            if count > self.settings.batch_max:
                limit = self.settings.batch_max
                raise LimitExceeded(f"a batch has at most {limit} commands", {"limit": limit})
            trace = _trace_of(delivery)
            asked = [
                (
                    [number for number, _command in part],
                    self._ask(shard, [command for _number, command in part], trace, delivery.expires_in_s),
                )
                for shard, part in sorted(parts.items())
            ]
            answer = merged(asked, count)
        except Exception as error:  # noqa: BLE001 - it is answered
            answer = error
        self._reply([(delivery, _encoded(answer))])
        if telemetry.active():
            self._record(BATCH_METHOD, started_at, answer)

    def _ask(
        self, shard: int, commands: list[msgspec.Raw], trace: str | None, deadline_s: float | None
    ) -> Callable[[], Any]:
        """Send a part to its shard; what is returned waits for the answer. The error of sending is raised there."""
        try:
            if self.queues[shard].active or self.settings.embedded:
                answered = Event()
                request = Request(BATCH_METHOD, body_of(commands), trace)
                self.batches[shard].add(Waiting(request, answered=partial(_tell, answered)))
                return answered.wait  # type: ignore[no-any-return]
            headers = {"traceparent": trace} if trace else None
            address = self.queues[shard].address
            return self.wire.caller.submit(address, BATCH_METHOD, {"commands": commands}, deadline_s, headers).result
        except TokengridError as error:
            return partial(_raise, error)

    def _record(self, method: str, started_at: float, answer: Answer) -> None:
        error = answer if isinstance(answer, Exception) else None
        tracing.record_call(f"{self.container.service_name}/{method}", started_at, error)

    def describe_span(self, worker_ctx: Any) -> dict[str, Any]:
        """A SERVER span: of the call itself if it is alone, else of the batch, linked to its calls."""
        requests = worker_ctx.args[1]
        service, single = self.container.service_name, len(requests) == 1
        name = f"{service}/{requests[0].method if single else self.method_name}"
        attributes: dict[str, Any] = {"rpc.system.name": tracing.RPC_SYSTEM, "rpc.method": name}
        if single:
            return {"name": name, "kind": "server", "attributes": attributes}
        attributes["messaging.batch.message_count"] = len(requests)
        return {"name": name, "kind": "server", "attributes": attributes, "links": [each.trace for each in requests]}


def _tell(answered: Event, answer: Answer) -> None:
    if isinstance(answer, Exception):
        answered.send_exception(answer)
    else:
        answered.send(answer)


def _raise(error: Exception) -> None:
    raise error


def _encoded(answer: Answer) -> bytes:
    if isinstance(answer, bytes):
        return b'{"result":' + answer + b',"error":null}'
    error = answer if isinstance(answer, Exception) else TypeError(f"{type(answer).__name__} is no answer")
    return answer_body(None, error)[0]


def _trace_of(delivery: Delivery) -> str | None:
    if not telemetry.active() or (delivery.message is None and b"traceparent" not in delivery.table):
        return None
    try:
        trace = delivery.headers.get("traceparent")
    except Exception:  # noqa: BLE001 - odd headers are no reason to refuse a request
        return None
    return trace if isinstance(trace, str) else None


F = TypeVar("F", bound=Callable[..., Sequence[Answer]])


def lane(*methods: str, place: PlaceOf | None = None) -> Callable[[F], F]:
    """Makes a method of a service serve the RPC methods of these names, many requests at a time; those for each
    shard, as `place` tells it, by themselves."""
    decorate: Callable[[F], F] = Lane.decorator(*methods, place=place)
    return decorate
