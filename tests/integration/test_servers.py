"""The private servers: they start, hold what they are given, listen on loopback only, and leave nothing behind."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pika
import psutil
import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from shared.errors import SetupFailed
from tests.waiting import eventually
from tokengrid.servers import PostgreSQL, RabbitMQ, ports, process
from tokengrid.servers.cluster import find_programs, reachable_folder, unprivileged_user

pytestmark = pytest.mark.servers


def connect(database_url: str) -> psycopg.Connection:
    return psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True, connect_timeout=5)


def listening_addresses(pids: list[int]) -> set[str]:
    return {c.laddr.ip for c in psutil.net_connections("inet") if c.pid in pids and c.status == psutil.CONN_LISTEN}


@pytest.fixture
def occupied_port() -> Iterator[int]:
    with socket.create_server((ports.LOOPBACK, 0)) as holder:
        yield holder.getsockname()[1]


def is_recorded(folder: Path, queue: bytes) -> bool:
    """A confirm is of the message. The queue's own record is written a moment later, into a log, from which it is moved
    into a table now and then."""
    for file in folder.rglob("*"):
        if file.suffix in (".LOG", ".DCL", ".DCD"):
            with contextlib.suppress(FileNotFoundError):
                if queue in file.read_bytes():
                    return True
    return False


class TestRabbitMQ:
    def test_carries_a_message_through_a_durable_queue(self, rabbitmq_uri: str) -> None:
        with pika.BlockingConnection(pika.URLParameters(rabbitmq_uri)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.queue_declare("letters", durable=True)
            channel.basic_publish("", "letters", b"a letter")
            _, _, body = channel.basic_get("letters", auto_ack=True)
            assert body == b"a letter"

    def test_replays_a_stream_from_the_beginning(self, rabbitmq_uri: str) -> None:
        with pika.BlockingConnection(pika.URLParameters(rabbitmq_uri)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.queue_declare("log", durable=True, arguments={"x-queue-type": "stream"})
            for number in range(3):
                channel.basic_publish("", "log", b"%d" % number)
            channel.basic_qos(prefetch_count=10)
            seen = []
            for method, _, body in channel.consume(
                "log", arguments={"x-stream-offset": "first"}, inactivity_timeout=10
            ):
                assert method is not None, f"the stream fell silent after {seen}"
                channel.basic_ack(method.delivery_tag)
                seen.append(body)
                if len(seen) == 3:
                    break
            channel.close()
            assert seen == [b"0", b"1", b"2"]

    def test_each_test_has_a_vhost_of_its_own(self, rabbitmq_uri: str) -> None:
        with pika.BlockingConnection(pika.URLParameters(rabbitmq_uri)) as connection:
            with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refusal:
                connection.channel().queue_declare("letters", passive=True)
            assert refusal.value.reply_code == 404

    def test_vhosts_can_be_added_while_it_runs(self, rabbitmq: RabbitMQ) -> None:
        rabbitmq.create_vhosts(["added"])
        pika.BlockingConnection(pika.URLParameters(rabbitmq.vhost_uri("added"))).close()

    def test_listens_on_loopback_only_epmd_included(self, rabbitmq: RabbitMQ) -> None:
        names = {psutil.Process(pid).name() for pid in rabbitmq.pids}
        assert {"epmd", "beam.smp"} <= names
        addresses = listening_addresses(rabbitmq.pids)
        assert addresses
        assert all(ipaddress.ip_address(address).is_loopback for address in addresses), addresses

    def test_refuses_a_stranger(self, rabbitmq: RabbitMQ) -> None:
        stranger = pika.ConnectionParameters(
            ports.LOOPBACK, rabbitmq.port, rabbitmq.vhosts[0], pika.PlainCredentials("guest", "guest")
        )
        with pytest.raises(pika.exceptions.ProbableAuthenticationError):
            pika.BlockingConnection(stranger)

    def test_its_secrets_are_readable_by_its_owner_alone(self, rabbitmq: RabbitMQ) -> None:
        for file in (rabbitmq.folder / "state.json", *(rabbitmq.folder / "etc").glob("*.json")):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file

    def test_after_a_crash_it_starts_on_the_same_address_with_what_it_held(self, own_rabbitmq: RabbitMQ) -> None:
        uri, pid = own_rabbitmq.uri, own_rabbitmq.pid
        with pika.BlockingConnection(pika.URLParameters(uri)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.queue_declare("letters", durable=True)
            channel.basic_publish("", "letters", b"kept", pika.BasicProperties(delivery_mode=2))
            eventually(lambda: is_recorded(own_rabbitmq.folder, b"letters"))
            own_rabbitmq.kill()
            assert own_rabbitmq.pid is None
            with pytest.raises(pika.exceptions.AMQPConnectionError):
                connection.process_data_events(time_limit=10)
        own_rabbitmq.start()
        assert own_rabbitmq.pid != pid
        assert own_rabbitmq.uri == uri
        with pika.BlockingConnection(pika.URLParameters(uri)) as connection:
            _, _, body = connection.channel().basic_get("letters", auto_ack=True)
            assert body == b"kept"

    def test_stopping_leaves_no_process_and_stopping_again_is_harmless(self, own_rabbitmq: RabbitMQ) -> None:
        marks = [process.Mark.of(pid) for pid in own_rabbitmq.pids]
        attached = RabbitMQ(own_rabbitmq.folder)  # as `tokengrid down` does, from another process
        attached.stop()
        assert [mark for mark in marks if mark.alive] == []
        attached.stop()
        own_rabbitmq.stop()

    def test_a_port_taken_at_the_last_moment_is_replaced(self, servers_folder: Path, occupied_port: int) -> None:
        offers = iter([[occupied_port, *ports.free_ports(2)], ports.free_ports(3)])
        server = RabbitMQ(servers_folder / "contended", pick_ports=lambda count: next(offers))
        try:
            server.start()
            assert server.port != occupied_port
        finally:
            server.remove()

    def test_a_missing_program_is_answered_with_advice(self, tmp_path: Path) -> None:
        with pytest.raises(SetupFailed, match=r"rabbitmq-server is not in .*install") as refusal:
            RabbitMQ(tmp_path / "rabbitmq", scripts=tmp_path).start()
        assert "\n" not in str(refusal.value)
        assert not (tmp_path / "rabbitmq").exists()

    def test_a_server_that_ends_at_once_is_reported_with_its_log(self, tmp_path: Path) -> None:
        script = tmp_path / "rabbitmq-server"
        script.write_text("#!/bin/sh\necho the disk is on fire\nexit 1\n")
        script.chmod(0o755)
        server = RabbitMQ(tmp_path / "rabbitmq", scripts=tmp_path)
        with pytest.raises(SetupFailed, match="the disk is on fire"):
            server.start()
        assert server.pids == []


class TestPostgreSQL:
    def test_a_commit_waits_for_the_disk(self, postgres_database: str) -> None:
        with connect(postgres_database) as connection:
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                assert connection.execute(f"SHOW {setting}").fetchone() == ("on",), setting

    def test_listens_on_loopback_only_and_on_no_socket_file(self, postgresql: PostgreSQL) -> None:
        assert listening_addresses(postgresql.pids) == {ports.LOOPBACK}
        with connect(postgresql.admin_url()) as connection:
            assert connection.execute("SHOW unix_socket_directories").fetchone() == ("",)

    def test_does_not_run_as_root(self, postgresql: PostgreSQL) -> None:
        assert postgresql.pid
        users = {psutil.Process(postgresql.pid).uids().real}
        for pid in postgresql.pids:
            with contextlib.suppress(psutil.NoSuchProcess):  # some of its workers come and go
                users.add(psutil.Process(pid).uids().real)
        assert 0 not in users

    def test_a_role_owns_its_database_and_may_enter_no_other(self, postgresql: PostgreSQL, new_database) -> None:
        mine, other = new_database("mine"), new_database("other")
        with connect(mine) as connection:
            connection.execute("CREATE TABLE ledger (id int)")
        trespass = mine.rpartition("/")[0] + "/" + other.rpartition("/")[2]
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            connect(trespass)

    def test_a_role_is_no_superuser(self, postgres_database: str) -> None:
        with connect(postgres_database) as connection, pytest.raises(InsufficientPrivilege):
            connection.execute("CREATE ROLE intruder")

    def test_refuses_a_wrong_password(self, postgresql: PostgreSQL) -> None:
        wrong = postgresql.admin_url().replace(":", ":wrong", 2).replace("wrong//", "//")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            connect(wrong)

    def test_its_secrets_are_readable_by_its_owner_alone(self, postgresql: PostgreSQL) -> None:
        assert stat.S_IMODE((postgresql.folder / "state.json").stat().st_mode) == 0o600

    def test_creating_a_database_twice_keeps_it(self, own_postgresql: PostgreSQL) -> None:
        url = own_postgresql.create_database("ledger")
        with connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS id")
        assert own_postgresql.create_database("ledger") == url
        with connect(url) as connection:
            assert connection.execute("SELECT id FROM kept").fetchone() == (1,)

    def test_after_a_crash_it_starts_on_the_same_address_with_what_was_committed(
        self, own_postgresql: PostgreSQL
    ) -> None:
        url, pid = own_postgresql.create_database("ledger"), own_postgresql.pid
        connection = connect(url)
        connection.execute("CREATE TABLE kept AS SELECT 1 AS id")
        own_postgresql.kill()
        assert own_postgresql.pid is None
        connection.close()
        own_postgresql.start()
        assert own_postgresql.pid != pid
        with connect(url) as connection:
            assert connection.execute("SELECT id FROM kept").fetchone() == (1,)

    def test_stopping_breaks_off_clients_leaves_no_process_and_can_be_repeated(
        self, own_postgresql: PostgreSQL
    ) -> None:
        client = connect(own_postgresql.create_database("ledger"))
        marks = [process.Mark.of(pid) for pid in own_postgresql.pids]
        attached = PostgreSQL(own_postgresql.folder)  # as `tokengrid down` does, from another process
        attached.stop()
        assert [mark for mark in marks if mark.alive] == []
        attached.stop()
        own_postgresql.stop()
        client.close()

    def test_a_port_taken_at_the_last_moment_is_replaced(self, servers_folder: Path, occupied_port: int) -> None:
        offers = iter([[occupied_port], ports.free_ports(1)])
        server = PostgreSQL(servers_folder / "contended-postgresql", pick_ports=lambda count: next(offers))
        try:
            server.start()
            assert server.port != occupied_port
        finally:
            server.remove()

    def test_a_port_taken_between_two_runs_is_replaced(self, own_postgresql: PostgreSQL) -> None:
        own_postgresql.stop()
        taken = own_postgresql.port
        with socket.create_server((ports.LOOPBACK, taken)):
            own_postgresql.start()
            assert own_postgresql.port != taken

    def test_a_missing_program_is_answered_with_advice(self, tmp_path: Path) -> None:
        with pytest.raises(SetupFailed, match=r"postgres and initdb are not in .*install") as refusal:
            PostgreSQL(tmp_path / "postgresql", programs=tmp_path).start()
        assert "\n" not in str(refusal.value)

    def test_an_initdb_that_fails_leaves_nothing_that_passes_for_data(self, servers_folder: Path) -> None:
        programs, folder = servers_folder / "broken", servers_folder / "unborn"
        programs.mkdir(mode=0o755)
        for name in ("postgres", "initdb"):
            (programs / name).write_text("#!/bin/sh\necho the disk is on fire >&2\nexit 1\n")
            (programs / name).chmod(0o755)
        with pytest.raises(SetupFailed, match="the disk is on fire"):
            PostgreSQL(folder, programs=programs).start()
        assert list(folder.iterdir()) == []

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as another user")
    def test_data_goes_where_the_other_user_can_reach_it(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o700)
        server = PostgreSQL(tmp_path / "postgresql", databases=["ledger"])
        try:
            server.start()
            assert not server.data.is_relative_to(tmp_path)
            assert PostgreSQL(tmp_path / "postgresql").data == server.data
            with connect(server.url("ledger")) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
        finally:
            server.remove()
        assert not server.data.parent.exists()

    def test_data_that_is_gone_is_not_replaced_by_empty_data(self, own_postgresql: PostgreSQL) -> None:
        own_postgresql.stop()
        own_postgresql.data.rename(own_postgresql.data.with_name("elsewhere"))
        with pytest.raises(SetupFailed, match="is gone: restore it"):
            own_postgresql.start()
        own_postgresql.data.with_name("elsewhere").rename(own_postgresql.data)
        own_postgresql.start()

    def test_data_stays_in_a_folder_that_can_be_reached(self, servers_folder: Path) -> None:
        assert reachable_folder(servers_folder, unprivileged_user()) == servers_folder

    def test_the_programs_of_a_version_that_is_not_there_are_not_replaced_by_another(self) -> None:
        with pytest.raises(SetupFailed, match="PostgreSQL 7's programs"):
            find_programs(major="7")


class TestMark:
    def test_a_recycled_pid_is_another_process(self) -> None:
        mark = process.Mark.of(os.getpid())
        assert mark.alive
        stranger = process.Mark(mark.pid, mark.created - 60)
        assert not stranger.alive
        stranger.stop(process.signal.SIGKILL, 1.0)  # we would not live to tell

    def test_a_process_that_ignores_the_signal_is_killed_after_the_bound(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        mark = process.start(
            ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 60; done"],
            env=process.plain_environment(),
            log=log,
        )
        assert process.wait_until(lambda: log.read_text() == "ready\n", 10)
        family = [mark, *mark.descendants()]
        mark.stop(process.signal.SIGTERM, 0.2)
        assert [member for member in family if member.alive] == []
