"""The containers' database script, run against a real PostgreSQL: one database a service, and no way across."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from shared.config import SERVICES
from tokengrid.servers import PostgreSQL
from tokengrid.servers.cluster import find_programs

pytestmark = pytest.mark.servers
SCRIPT = Path(__file__).parents[2] / "deploy" / "postgres" / "init.sh"


def run(server: PostgreSQL, passwords: dict[str, str]) -> subprocess.CompletedProcess[str]:
    admin = urlsplit(server.admin_url())
    environment = {
        "PATH": f"{find_programs()}:{os.environ['PATH']}",
        "PGHOST": str(admin.hostname),
        "PGPORT": str(admin.port),
        "PGPASSWORD": str(admin.password),
        "POSTGRES_USER": str(admin.username),
        **passwords,
    }
    return subprocess.run(["sh", str(SCRIPT)], env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_every_service_owns_its_database_and_can_enter_no_other(own_postgresql: PostgreSQL) -> None:
    passwords = {f"{service.upper()}_DATABASE_PASSWORD": f"secret-of-{service}" for service in SERVICES}
    result = run(own_postgresql, passwords)
    assert result.returncode == 0, result.stderr

    def connect(role: str, database: str) -> psycopg.Connection:
        at = f"127.0.0.1:{own_postgresql.port}/tokengrid_{database}"
        return psycopg.connect(f"postgresql://tokengrid_{role}:secret-of-{role}@{at}", connect_timeout=5)

    for service in SERVICES:
        with connect(service, service) as connection:
            connection.execute("CREATE TABLE ledger (id int)")
        for other in set(SERVICES) - {service}:
            with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
                connect(service, other)


def test_quota_owns_a_database_for_each_of_its_shards(own_postgresql: PostgreSQL) -> None:
    passwords = {f"{service.upper()}_DATABASE_PASSWORD": f"secret-of-{service}" for service in SERVICES}
    result = run(own_postgresql, passwords | {"QUOTA_SHARDS": "3"})
    assert result.returncode == 0, result.stderr
    at = f"127.0.0.1:{own_postgresql.port}/tokengrid_quota"
    for shard in range(3):
        url = f"postgresql://tokengrid_quota:secret-of-quota@{at}_{shard}"
        with psycopg.connect(url, connect_timeout=5) as connection:
            connection.execute("CREATE TABLE ledger (id int)")
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(url.replace("quota:secret-of-quota", "billing:secret-of-billing"), connect_timeout=5)


def test_a_missing_password_stops_it_with_the_name_of_what_is_missing(own_postgresql: PostgreSQL) -> None:
    result = run(own_postgresql, {"CATALOG_DATABASE_PASSWORD": "a"})
    assert result.returncode != 0
    assert "QUOTA_DATABASE_PASSWORD: set QUOTA_DATABASE_PASSWORD in .env" in result.stderr
