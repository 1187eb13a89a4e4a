"""A service's own link to the broker, shared by all its extensions: replies, calls to peers, prompts.

The request queue has a connection of its own (nameko's), so that a broker that holds back publishers does
not hold back acknowledgements. It must know nothing of methods or of what is in a message.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from nameko.exceptions import UnserializableValueError
from nameko.extensions import SharedExtension

from shared.config import Settings
from shared.messaging import codec, tracing
from shared.messaging.calls import Caller
from shared.messaging.known_errors import error_to_wire
from shared.messaging.link import RPC_EXCHANGE, Outgoing
from shared.messaging.transport import Delivery

log = logging.getLogger(__name__)

# How long an answer waits for a lost connection. After a broker's restart the caller's queue is gone anyway.
REPLY_PATIENCE_S = 5.0


def settings_of(config: dict[str, Any]) -> Settings:
    """The settings within nameko's configuration; for a plain one, those that it implies."""
    settings = config.get("tokengrid")
    return settings if isinstance(settings, Settings) else Settings.model_validate({"broker": config["AMQP_URI"]})


def answer_body(result: Any, error: BaseException | None) -> tuple[bytes, BaseException | None]:
    """The body of an answer, and the error in it, if any: one that cannot be encoded is the method's fault."""
    try:
        return codec.encode({"result": result, "error": error and error_to_wire(error)}), error
    except Exception:  # noqa: BLE001 - whatever it is, the service lives on
        fault = UnserializableValueError(result)
        return codec.encode({"result": None, "error": error_to_wire(fault)}), fault


class Wire(SharedExtension):  # type: ignore[misc]
    """One link for each service container."""

    caller: Caller

    def setup(self) -> None:
        """Extensions that need the caller in their own set-up call this first; it acts once."""
        if not hasattr(self, "caller"):
            self.caller = Caller(settings_of(self.container.config), self.container.service_name)

    def start(self) -> None:
        self.caller.link.start()

    def stop(self) -> None:
        self.caller.link.close()

    kill = stop

    def answer(self, answers: Sequence[tuple[Delivery, bytes]]) -> None:
        """Send answers that are encoded already, in one write. Never raises, as `reply`."""
        try:
            self.caller.link.publish_all(
                [Outgoing(request.reply_to, body, request.correlation_id) for request, body in answers],
                wait_s=REPLY_PATIENCE_S,
            )
        except Exception as exc:  # noqa: BLE001 - as below
            log.warning("%s: %d answers were dropped: %s", self.container.service_name, len(answers), exc)
            tracing.count_rejected(self.container.service_name, "reply undeliverable")

    def reply(self, properties: dict[str, Any], result: Any, error: BaseException | None) -> BaseException | None:
        """Answer a request; returns the error that was sent, if any.

        Never raises: an answer that cannot be delivered is dropped and logged, because its caller has a
        deadline, and repeating the request has one effect.
        """
        body, error = answer_body(result, error)
        try:
            self.caller.link.publish(
                body,
                RPC_EXCHANGE,
                properties["reply_to"],
                wait_s=REPLY_PATIENCE_S,
                correlation_id=properties.get("correlation_id") or "",
            )
        except Exception as exc:  # noqa: BLE001 - a caller's odd address must not kill the service either
            log.warning("%s: an answer was dropped: %s", self.container.service_name, exc)
            tracing.count_rejected(self.container.service_name, "reply undeliverable")
        return error
