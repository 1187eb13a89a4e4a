"""Installs missing server programs from Debian's packages; starts none of them.

`python -m tokengrid.servers.install` installs both servers, `… install java` what Spark needs. Where the programs are
there, nothing is done.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from shared.errors import SetupFailed
from tokengrid.servers.cluster import find_programs as find_postgresql
from tokengrid.servers.rabbitmq import find_scripts as find_rabbitmq

INSTALL_BOUND_S = 900  # a slow mirror, and another installation that holds the lock
PACKAGES: Mapping[str, Callable[[], object]] = {"rabbitmq-server": find_rabbitmq, "postgresql": find_postgresql}
JAVA = "default-jre-headless"

# Packages start their service when they are installed; a policy file that answers 101 forbids it.
# An own one of the machine stays as it is; ours goes, whatever happens, or with the next run.
POLICY = "/usr/sbin/policy-rc.d"
SCRIPT = r"""
set -e
policy=$1
shift
if [ ! -e "$policy" ] || grep -q 'tokengrid, while it installs' "$policy"; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM HUP
    printf '#!/bin/sh\n# By tokengrid, while it installs: start no service.\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q -o DPkg::Lock::Timeout=300
apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
"""


def ensure(packages: Iterable[str] = tuple(PACKAGES), *, progress: Callable[[str], None] | None = None) -> list[str]:
    """Make the packages' programs available; returns those it had to install.

    SetupFailed: they are missing and cannot be installed, with what to do.
    """
    finders = {**PACKAGES, JAVA: find_java}
    missing = [name for name in packages if not _found(finders[name])]
    if not missing:
        return []
    wanted = " ".join(missing)
    by_hand = f"install them yourself: apt-get install {wanted}"
    if shutil.which("apt-get") is None:
        raise SetupFailed(f"{wanted}: not found, and this machine has no apt-get; {by_hand}")
    if progress:
        progress(f"installing {wanted}")
    command = [*_as_root(by_hand), "sh", "-c", SCRIPT, "sh", POLICY, *missing]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_BOUND_S, check=False)
    except subprocess.TimeoutExpired:
        raise SetupFailed(f"{wanted}: not installed within {INSTALL_BOUND_S} s; {by_hand}") from None
    if result.returncode != 0:
        last = "\n".join((result.stdout + result.stderr).strip().splitlines()[-12:])
        raise SetupFailed(f"{wanted}: apt-get failed; {by_hand}\n{last}")
    for name in missing:
        finders[name]()  # raises SetupFailed when it is still not there
    return missing


def find_java() -> str:
    """The path of the `java` program. SetupFailed: there is none."""
    found = shutil.which("java")
    if found is None:
        raise SetupFailed(f"java is not there: apt-get install {JAVA}")
    return found


def _found(find: Callable[[], object]) -> bool:
    try:
        find()
    except SetupFailed:
        return False
    return True


def _as_root(by_hand: str) -> list[str]:
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0:
        return [sudo, "-n"]
    raise SetupFailed(f"Server programs are missing and we are neither root nor have sudo without password; {by_hand}")


def main(arguments: Sequence[str] = ()) -> int:
    try:
        installed = ensure([JAVA] if list(arguments) == ["java"] else tuple(PACKAGES), progress=_say)
    except SetupFailed as error:
        _say(str(error))
        return 1
    _say(f"installed: {', '.join(installed)}" if installed else "nothing to install")
    return 0


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
