"""The Ed25519 keys of C2SP signed notes, and their text forms.

A verifier key is `name+id+base64(type ‖ public key)`, a signing key `PRIVATE+KEY+name+id+base64(type ‖ seed)`,
as Go's sumdb/note writes them. It must not know notes, nor where a key is kept.
"""

from __future__ import annotations

import hashlib
import string
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shared.errors import MalformedCommand
from shared.transparency import cosignature
from shared.transparency.encoding import from_base64, is_key_name, to_base64

ED25519 = 0x01
COSIGNATURE = 0x04
KINDS = (ED25519, COSIGNATURE)
KEY_ID_BYTES = 4
KEY_BYTES = 32
_PRIVATE = "PRIVATE+KEY+"


def key_id(name: str, kind: int, public: bytes) -> bytes:
    """SHA-256(name ‖ LF ‖ kind ‖ public key)[:4]: a label to find the key by, not a commitment to it."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:KEY_ID_BYTES]


@dataclass(frozen=True)
class VerifierKey:
    """A public key under a name. `kind` is ED25519 for a log (or anyone signing a text),
    COSIGNATURE for a witness. Raises MalformedCommand when a part is out of bounds."""

    name: str
    kind: int
    public: bytes

    def __post_init__(self) -> None:
        _check(self.name, self.kind, self.public)

    @property
    def id(self) -> bytes:
        return key_id(self.name, self.kind, self.public)

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """From `name+id+base64`. Raises MalformedCommand, also when the id is another key's."""
        name, given_id, kind, public = _parse(text, "verifier key")
        key = cls(name, kind, public)
        if key.id != given_id:
            raise _malformed("verifier key", f"its id is {key.id.hex()}, not {given_id.hex()}")
        return key

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{to_base64(bytes([self.kind]) + self.public)}"

    def verifies(self, text: str, signature: bytes) -> bool:
        """Whether `signature` (without the key id) is this key's over a note's `text`."""
        try:
            signed = text.encode()
            if self.kind == COSIGNATURE:
                timestamp_s, signature = cosignature.unpack(signature)
                signed = cosignature.message(text, timestamp_s)
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, signed)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True)
class SigningKey:
    """A private key under a name; `repr` does not show the seed. Raises MalformedCommand as VerifierKey does."""

    name: str
    kind: int
    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _check(self.name, self.kind, self.seed)

    @classmethod
    def generate(cls, name: str, kind: int = ED25519) -> SigningKey:
        """A new key from the system's randomness."""
        return cls(name, kind, Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> SigningKey:
        """From `PRIVATE+KEY+name+id+base64`. Raises MalformedCommand; the message holds nothing secret."""
        if not text.startswith(_PRIVATE):
            raise _malformed("signing key", f"does not begin with {_PRIVATE}")
        name, given_id, kind, seed = _parse(text.removeprefix(_PRIVATE), "signing key")
        key = cls(name, kind, seed)
        if key.verifier.id != given_id:
            raise _malformed("signing key", "its id is another key's")
        return key

    @property
    def verifier(self) -> VerifierKey:
        public = Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()
        return VerifierKey(self.name, self.kind, public)

    def secret_text(self) -> str:
        """The text form, seed included: for a file that only its owner can read."""
        return f"{_PRIVATE}{self.name}+{self.verifier.id.hex()}+{to_base64(bytes([self.kind]) + self.seed)}"

    def sign(self, text: str, timestamp_s: int | None = None) -> bytes:
        """The signature (without the key id) over a note's `text`. A COSIGNATURE key needs the POSIX
        time and an ED25519 key has no use for it: ValueError otherwise."""
        private = Ed25519PrivateKey.from_private_bytes(self.seed)
        if self.kind == COSIGNATURE:
            if timestamp_s is None:
                raise ValueError("a witness signs with a timestamp")
            return cosignature.pack(timestamp_s, private.sign(cosignature.message(text, timestamp_s)))
        if timestamp_s is not None:
            raise ValueError("only a witness signs with a timestamp")
        return private.sign(text.encode())


def _check(name: str, kind: int, key: bytes) -> None:
    if not is_key_name(name):
        raise _malformed("key name", "is empty or has a space, a plus or a control character")
    if kind not in KINDS:
        raise _malformed("key type", f"0x{kind:02x} is not supported")
    if len(key) != KEY_BYTES:
        raise _malformed("key", f"has {len(key)} bytes, not {KEY_BYTES}")


def _parse(text: str, what: str) -> tuple[str, bytes, int, bytes]:
    # Base64 may contain a plus; a name may not: so the first two separate.
    name, _, rest = text.partition("+")
    id_hex, _, encoded = rest.partition("+")
    if len(id_hex) != 2 * KEY_ID_BYTES or not set(id_hex) <= set(string.hexdigits):
        raise _malformed(what, "is not name+id+base64 with an id of eight hexadecimal digits")
    try:
        data = from_base64(encoded)
    except ValueError:
        raise _malformed(what, "its key is not base64") from None
    if not data:
        raise _malformed(what, "its key is empty")
    return name, bytes.fromhex(id_hex), data[0], data[1:]


def _malformed(what: str, complaint: str) -> MalformedCommand:
    return MalformedCommand(f"{what}: {complaint}", {"fields": {what: [complaint]}})
