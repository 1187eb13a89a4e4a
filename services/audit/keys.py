"""The key that checkpoints are signed with: from the environment, or a file that only its owner can read.

One private key, under one name a log (`origin/log`), as C2SP wants a log's key to be called as the log.
The key is never logged and never in an event; the verifier keys are public.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from shared.config import Settings
from shared.errors import MalformedCommand, SetupFailed
from shared.transparency.keys import ED25519, SigningKey

OWNER_ONLY = 0o600


def load_key(settings: Settings) -> SigningKey:
    """The installation's signing key; on the very first start a new one is made and kept.

    Raises SetupFailed when it cannot be read, is no key, or others can read its file.
    """
    if settings.audit_key is not None:
        return _parsed(settings.audit_key.get_secret_value(), "TOKENGRID_AUDIT_KEY")
    path = settings.var / "audit" / "key"
    try:
        if not path.exists():
            _create(path, SigningKey.generate(settings.audit_origin))
    except OSError as error:
        raise SetupFailed(f"{path}: the signing key cannot be written: {type(error).__name__}.") from None
    return _read(path)


def _read(path: Path) -> SigningKey:
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise SetupFailed(f"{path}: others can read the signing key; make it readable by its owner alone.")
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupFailed(f"{path}: the signing key cannot be read: {type(error).__name__}.") from None
    return _parsed(text, str(path))


def load_next_key(settings: Settings) -> SigningKey | None:
    """The key that is to take the place of the present one, if there is one. Raises SetupFailed as `load_key`."""
    if settings.audit_next_key is not None:
        return _parsed(settings.audit_next_key.get_secret_value(), "TOKENGRID_AUDIT_NEXT_KEY")
    path = settings.var / "audit" / "next-key"
    return _read(path) if path.exists() else None


def make_key(path: Path, origin: str) -> SigningKey:
    """A new key in a file that only its owner can read. Raises SetupFailed if there is something already."""
    try:
        if not path.exists():
            _create(path, made := SigningKey.generate(origin))
            if _read(path) == made:
                return made
    except OSError as error:
        raise SetupFailed(f"{path}: no key can be written: {type(error).__name__}.") from None
    raise SetupFailed(f"{path} is there already.")


def key_of(key: SigningKey, log: str) -> SigningKey:
    """The key under the name of a log, which is also the origin in that log's checkpoints."""
    return SigningKey(f"{key.name}/{log}", ED25519, key.seed)


def _create(path: Path, key: SigningKey) -> None:
    """Whole or not at all, and never over another's: of two processes that start at once, one wins."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"key.{secrets.token_hex(8)}")
    with open(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, OWNER_ONLY), "w", encoding="ascii") as file:
        file.write(key.secret_text() + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _parsed(text: str, where: str) -> SigningKey:
    try:
        key = SigningKey.parse(text.strip())
    except MalformedCommand as error:
        raise SetupFailed(f"{where}: {error}") from None
    if key.kind != ED25519:
        raise SetupFailed(f"{where}: a witness's key cannot sign checkpoints.")
    return key
