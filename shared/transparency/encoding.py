"""Base64 and key names as the C2SP formats want them: one spelling for one value, anything else refused."""

from __future__ import annotations

import base64
import binascii


def to_base64(data: bytes) -> str:
    """RFC 4648 §4, with padding."""
    return base64.b64encode(data).decode("ascii")


def from_base64(text: str) -> bytes:
    """The bytes of canonical base64. Raises ValueError for foreign characters, missing or wrong
    padding, and unused bits that are not zero (they would give one signature many spellings)."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("not base64") from error
    if to_base64(data) != text:
        raise ValueError("not canonical base64")
    return data


def is_note_text(text: str) -> bool:
    """Whether `text` is valid UTF-8 when encoded and has no ASCII control character but newline."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return all(c >= " " or c == "\n" for c in text)


def is_key_name(name: str) -> bool:
    """Not empty, no Unicode space, no `+`, nothing that a note may not contain."""
    return bool(name) and "+" not in name and not any(c.isspace() for c in name) and is_note_text(name)
