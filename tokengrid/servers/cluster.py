"""A new PostgreSQL cluster on disk: where its data can be, whom it runs as, and `initdb`.

PostgreSQL refuses to run as root, so root gives the data to another user, who must be able to get there.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared.errors import SetupFailed
from tokengrid.servers import process, state

SUPERUSER = "tokengrid"
UNPRIVILEGED = ("postgres", "nobody")
INITDB_BOUND_S = 120.0  # half a second on an idle machine
DEBIAN_VERSIONS = Path("/usr/lib/postgresql")
ADVICE = "install it: python -m tokengrid.servers.install"


def find_programs(programs: Path | None = None, *, major: str | None = None) -> Path:
    """The folder of `postgres` and `initdb`: of this major version, else of the newest. SetupFailed: none."""
    if programs:
        candidates = [programs]
    else:
        numbered = [folder for folder in DEBIAN_VERSIONS.glob("*/bin") if folder.parent.name.isdigit()]
        candidates = sorted(numbered, key=lambda folder: -int(folder.parent.name))
        found = shutil.which("postgres")
        candidates += [Path(found).resolve().parent] if found else []
    fitting = [
        folder for folder in candidates if all(os.access(folder / name, os.X_OK) for name in ("postgres", "initdb"))
    ]
    if major and not programs:
        fitting = [folder for folder in fitting if folder.parent.name == major or not folder.parent.name.isdigit()]
    if fitting:
        return fitting[0]
    where = ", ".join(str(folder) for folder in candidates) or f"{DEBIAN_VERSIONS}/*/bin, nor on the PATH"
    version = f" {major}" if major else ""
    raise SetupFailed(f"PostgreSQL{version}'s programs postgres and initdb are not in {where}; {ADVICE}")


def create(folder: Path, programs: Path | None = None) -> dict[str, Any]:
    """A new cluster in `folder`, or where `user` can reach it; returns the server's first state.

    SetupFailed: the programs are missing, no user may run it, or initdb refused. Where it fails or is broken
    off, nothing is left that would pass for a cluster.
    """
    found = find_programs(programs)
    user = unprivileged_user()
    home = reachable_folder(folder, user)
    data, secret = home / "data", home / f"initdb-{secrets.token_hex(4)}"
    password = secrets.token_hex(16)
    try:
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(mode=0o700)
        state.write_private(secret, password)
        give([data, secret], user)
        _initdb(found, data, secret, user)
    except BaseException:
        shutil.rmtree(data if home == folder else home, ignore_errors=True)
        raise
    finally:
        secret.unlink(missing_ok=True)
    return {"data": str(data), "user": user, "password": password, "roles": {}}


def unprivileged_user() -> str | None:
    """Whom to run as: None is ourselves; root needs another. SetupFailed: there is none."""
    if os.geteuid() != 0:
        return None
    for name in UNPRIVILEGED:
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise SetupFailed(
        "PostgreSQL refuses to run as root and there is no user `postgres`: create one, or do not be root."
    )


def give(paths: Sequence[Path], user: str | None) -> None:
    """Make `user` the owner; None is ourselves, and nothing happens."""
    for path in paths if user else ():
        shutil.chown(path, user, process.user_group(user or ""))


def reachable_folder(folder: Path, user: str | None) -> Path:
    """The folder itself, or one in the system's temporary folder where `user` could not get through to it."""
    if user is None or all(_may_enter(parent, user) for parent in (folder, *folder.parents)):
        return folder
    home = Path(tempfile.mkdtemp(prefix="tokengrid-postgresql-"))
    give([home], user)
    if all(_may_enter(parent, user) for parent in (home, *home.parents)):
        return home
    home.rmdir()
    raise SetupFailed(
        f"The user {user} can reach neither {folder} nor {home.parent}: allow it to enter one (chmod o+x)."
    )


def _may_enter(folder: Path, user: str) -> bool:
    entry, found = pwd.getpwnam(user), folder.stat()
    if found.st_uid == entry.pw_uid:
        return bool(found.st_mode & 0o100)
    return bool(found.st_mode & (0o010 if found.st_gid == entry.pw_gid else 0o001))


def _initdb(programs: Path, data: Path, secret: Path, user: str | None) -> None:
    command = [
        *(str(programs / "initdb"), "-D", str(data), "-U", SUPERUSER, f"--pwfile={secret}"),
        *("--auth-host=scram-sha-256", "--auth-local=reject", "--encoding=UTF8", "--locale=C", "--no-instructions"),
    ]
    as_user: dict[str, Any] = {}
    if user:
        as_user = {"user": user, "group": process.user_group(user), "extra_groups": []}
    try:
        result = subprocess.run(
            command,
            env=process.plain_environment(),
            cwd=data,
            capture_output=True,
            text=True,
            timeout=INITDB_BOUND_S,
            check=False,
            **as_user,
        )
    except OSError as error:
        raise SetupFailed(f"{command[0]} cannot be run: {error.strerror}; {ADVICE}") from error
    if result.returncode != 0:
        said = re.sub(r"\s*\n\s*", "; ", (result.stderr or result.stdout).strip())
        raise SetupFailed(f"PostgreSQL's initdb failed in {data}: correct what it says: {said[-1500:]}")
