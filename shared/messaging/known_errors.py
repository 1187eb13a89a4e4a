"""Makes our errors travel: whoever has imported this module gets the very class back, with its details.

nameko sends an exception as its type name, module path and string arguments, and rebuilds it at the
caller if the path is registered there. Without this module the caller gets a RemoteError whose `exc_type`
is the code. It must know nothing of how messages move.
"""

from __future__ import annotations

from typing import Any

from nameko.exceptions import RemoteError, deserialize, deserialize_to_instance, serialize

from shared.errors import catalogue

for _error in catalogue().values():
    deserialize_to_instance(_error)


def error_to_wire(error: BaseException) -> dict[str, Any]:
    """The form in which nameko's answers carry an error."""
    carried: dict[str, Any] = serialize(error)
    return carried


def error_from_wire(carried: dict[str, Any]) -> Exception:
    """The error of an answer: our class, nameko's class, or RemoteError for one that is unknown here."""
    try:
        error: Exception = deserialize(carried)
    except (TypeError, ValueError, KeyError, AttributeError):  # a version of ours that carries other arguments
        error = RemoteError(str(carried.get("exc_type")), str(carried.get("value")))
    return error
