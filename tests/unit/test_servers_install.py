"""Installing server programs: only what is missing, only where we may, and no service is started by it."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from shared.errors import SetupFailed
from tokengrid.servers import install

OWN_POLICY = "#!/bin/sh\nexit 0\n"


def found() -> None:
    return None


def missing() -> None:
    raise SetupFailed("not here")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose apt-get notes what it is asked, and the policy that is in force meanwhile."""
    apt = tmp_path / "apt-get"
    apt.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\ncat {tmp_path}/policy > {tmp_path}/seen\n')
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(install, "POLICY", str(tmp_path / "policy"))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return tmp_path


def packages(monkeypatch: pytest.MonkeyPatch, *answers: object) -> None:
    monkeypatch.setattr(install, "PACKAGES", dict(zip(("rabbitmq-server", "postgresql"), answers, strict=True)))


def appears_after_one_look() -> object:
    looks = []

    def look() -> None:
        looks.append(1)
        if len(looks) == 1:
            missing()

    return look


def test_nothing_is_asked_of_apt_where_nothing_is_missing(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages(monkeypatch, found, found)
    assert install.ensure() == []
    assert not (machine / "asked").exists()


def test_only_what_is_missing_is_installed(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages(monkeypatch, appears_after_one_look(), found)
    assert install.ensure(["rabbitmq-server", "postgresql"]) == ["rabbitmq-server"]
    update, wanted = (machine / "asked").read_text().splitlines()
    assert update.startswith("update ")
    assert wanted.startswith("install ")
    assert wanted.endswith(" rabbitmq-server")


def test_services_are_forbidden_to_start_meanwhile_and_the_policy_goes_again(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages(monkeypatch, appears_after_one_look(), found)
    install.ensure(["rabbitmq-server"])
    assert "exit 101" in (machine / "seen").read_text()
    assert not (machine / "policy").exists()


def test_the_machines_own_policy_stays_as_it_is(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "policy").write_text(OWN_POLICY)
    packages(monkeypatch, appears_after_one_look(), found)
    install.ensure(["rabbitmq-server"])
    assert (machine / "policy").read_text() == OWN_POLICY


def test_the_policy_of_a_run_that_was_killed_goes_with_the_next(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "policy").write_text("# By tokengrid, while it installs: start no service.\n")
    packages(monkeypatch, appears_after_one_look(), found)
    install.ensure(["rabbitmq-server"])
    assert not (machine / "policy").exists()


def test_the_policy_goes_when_the_installation_is_broken_off(machine: Path) -> None:
    (machine / "apt-get").write_text("#!/bin/sh\necho started\nread _\n")
    command = ["sh", "-c", install.SCRIPT, "sh", str(machine / "policy"), "any"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"started\n"
        assert (machine / "policy").exists()
        run.send_signal(signal.SIGTERM)
    assert run.returncode == 130
    assert not (machine / "policy").exists()


def test_what_apt_says_when_it_fails_is_told(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "apt-get").write_text("#!/bin/sh\necho no space left >&2\nexit 100\n")
    packages(monkeypatch, missing, found)
    with pytest.raises(SetupFailed, match=r"apt-get install rabbitmq-server[\s\S]*no space left"):
        install.ensure(["rabbitmq-server"])


def test_without_rights_nothing_is_tried_and_the_command_is_named(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages(monkeypatch, missing, missing)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    (machine / "sudo").write_text("#!/bin/sh\nexit 1\n")
    (machine / "sudo").chmod(0o755)
    with pytest.raises(SetupFailed, match=r"apt-get install rabbitmq-server postgresql$") as refusal:
        install.ensure(["rabbitmq-server", "postgresql"])
    assert "\n" not in str(refusal.value)
    assert not (machine / "asked").exists()


def test_without_apt_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages(monkeypatch, missing, found)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupFailed, match="this machine has no apt-get"):
        install.ensure(["rabbitmq-server"])
