"""The deployment's files agree with the code and with each other, and carry no secret."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.config import SERVICES, Settings
from tokengrid.serve import CLASSES, STREAMS

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
COMPOSE_TEXT = (DEPLOY / "compose.yaml").read_text()
SHARDS_TEXT = (DEPLOY / "compose.shards.yaml").read_text()
SERVERS = {"rabbitmq", "postgres"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE_TEXT)["services"]


def copied_by_the_dockerfile() -> list[str]:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    return [line.split()[1] for line in lines if line.startswith("COPY ")]


def test_there_is_a_container_for_every_service_and_for_nothing_else(compose: dict[str, Any]) -> None:
    assert set(compose) - SERVERS == {*SERVICES, STREAMS}


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_runs_its_service_alone(compose: dict[str, Any], service: str) -> None:
    assert compose[service]["command"] == [service]
    assert service in CLASSES


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_a_database_and_a_role_and_a_password_of_its_own(compose: dict[str, Any], service: str) -> None:
    password = rf"\${{{service.upper()}_DATABASE_PASSWORD:\?[^}}]+}}"
    own = rf"postgresql\+psycopg://tokengrid_{service}:{password}@postgres/tokengrid_{service}"
    assert re.fullmatch(own, compose[service]["environment"]["TOKENGRID_DATABASE"])


def test_the_copier_has_no_database(compose: dict[str, Any]) -> None:
    assert compose[STREAMS]["command"] == [STREAMS]
    assert set(compose[STREAMS]["environment"]) == {"TOKENGRID_BROKER"}


@pytest.mark.parametrize("service", [*SERVICES, STREAMS])
def test_every_setting_of_a_service_exists(compose: dict[str, Any], service: str) -> None:
    known = {f"TOKENGRID_{name.upper()}" for name in Settings.model_fields}
    assert set(compose[service]["environment"]) <= known


@pytest.mark.parametrize("service", [*SERVICES, STREAMS])
def test_a_service_starts_when_its_servers_are_healthy_and_is_started_again(
    compose: dict[str, Any], service: str
) -> None:
    assert compose[service]["depends_on"] == {name: {"condition": "service_healthy"} for name in SERVERS}
    assert all("healthcheck" in compose[name] for name in SERVERS)
    assert compose[service]["restart"] == "unless-stopped"


@pytest.mark.parametrize("service", [*SERVICES, STREAMS])
def test_a_service_has_no_more_rights_than_it_needs(compose: dict[str, Any], service: str) -> None:
    assert compose[service]["read_only"] is True
    assert compose[service]["cap_drop"] == ["ALL"]
    assert "ports" not in compose[service]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_may_finish_what_it_has_in_hand(compose: dict[str, Any], service: str) -> None:
    seconds = int(compose[service]["stop_grace_period"].removesuffix("s"))
    assert seconds > Settings().deadline_s + 5  # the runner's own bound


def test_what_is_published_is_published_on_loopback_only(compose: dict[str, Any]) -> None:
    published = [port for service in compose.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_servers_are_pinned_to_a_version(compose: dict[str, Any]) -> None:
    assert re.fullmatch(r"rabbitmq:3\.13\.\d+", compose["rabbitmq"]["image"])
    assert re.fullmatch(r"postgres:15\.\d+", compose["postgres"]["image"])


def test_every_secret_is_required_and_none_has_a_value() -> None:
    wanted = set(re.findall(r"\${(\w+)", COMPOSE_TEXT))
    required = set(re.findall(r"\${(\w+):\?", COMPOSE_TEXT))
    example = dict(
        line.split("=", 1) for line in (DEPLOY / ".env.example").read_text().splitlines() if not line.startswith("#")
    )
    assert wanted == required == set(example)
    assert set(example.values()) == {""}


@pytest.mark.parametrize("service", [*SERVICES, STREAMS])
def test_with_shards_every_service_knows_how_many_there_are(service: str) -> None:
    override = yaml.safe_load(SHARDS_TEXT)["services"]
    assert override[service]["environment"]["TOKENGRID_QUOTA_SHARDS"] == "${QUOTA_SHARDS:?set it in .env}"
    assert set(override) - SERVERS == {*SERVICES, STREAMS}


def test_with_shards_quotas_databases_are_those_that_the_init_script_makes() -> None:
    override = yaml.safe_load(SHARDS_TEXT)["services"]
    url = re.sub(r"\${\w+:\?[^}]+}", "secret", override["quota"]["environment"]["TOKENGRID_DATABASE"])
    settings = Settings(database=url, quota_shards=2)
    assert settings.database_url("quota", 1) == "postgresql+psycopg://tokengrid_quota:secret@postgres/tokengrid_quota_1"
    assert 'name="tokengrid_quota_$shard"' in (DEPLOY / "postgres" / "init.sh").read_text()
    assert set(override["postgres"]["environment"]) == {"QUOTA_SHARDS"}


def test_every_volume_that_is_used_is_declared(compose: dict[str, Any]) -> None:
    declared = set(yaml.safe_load(COMPOSE_TEXT)["volumes"])
    used = {volume.split(":")[0] for service in compose.values() for volume in service.get("volumes", ())}
    assert {name for name in used if not name.startswith(".")} == declared


def test_every_file_that_compose_refers_to_exists(compose: dict[str, Any]) -> None:
    mounted = [v.split(":")[0] for v in compose["postgres"]["volumes"] if v.startswith(".")]
    assert mounted
    assert all((DEPLOY / name).is_file() for name in mounted)
    assert (DEPLOY / compose["quota"]["build"]["context"]).resolve() == REPOSITORY
    assert (REPOSITORY / compose["quota"]["build"]["dockerfile"]).is_file()


def test_the_init_script_may_be_run_and_knows_every_service(compose: dict[str, Any]) -> None:
    script = DEPLOY / "postgres" / "init.sh"
    assert script.stat().st_mode & stat.S_IXOTH
    listed = re.search(r"for service in (.*); do", script.read_text())
    assert listed
    assert tuple(listed[1].split()) == SERVICES
    given = set(compose["postgres"]["environment"])
    assert {f"{service.upper()}_DATABASE_PASSWORD" for service in SERVICES} <= given


def test_every_file_that_the_dockerfile_copies_exists_and_is_let_through() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    copied = copied_by_the_dockerfile()
    assert copied
    for name in copied:
        assert (REPOSITORY / name).exists(), name
        assert f"!{name}" in ignored, name


def test_the_image_installs_by_hash_and_does_not_run_as_root() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert "--require-hashes" in dockerfile
    user = re.findall(r"^USER (\d+)", dockerfile, re.MULTILINE)
    assert user
    assert int(user[-1]) > 0
    assert dockerfile.rstrip().endswith('ENTRYPOINT ["python", "-m", "tokengrid.serve"]')


def test_every_line_of_the_lock_has_a_hash() -> None:
    text = (REPOSITORY / "requirements.lock").read_text().replace("\\\n", " ")
    requirements = [line for line in text.splitlines() if re.match(r"[a-z0-9]", line)]
    assert requirements
    assert [line for line in requirements if "--hash=sha256:" not in line] == []
