"""A private RabbitMQ node for tests and measurements, from the machine's own rabbitmq-server.

`sangha up` never starts one: who wants RabbitMQ runs it and sets SANGHA_BROKER_URL. The node listens on loopback only,
on ports of its own, keeps everything in one folder, and brings its own port mapper (epmd), which otherwise would stay
behind as a daemon. Killed with -9 and started again, it has its data.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from models.platform.errors import ConfigurationError
from ops.process import launcher_command

#: Debian's wrapper in /usr/sbin changes to the user `rabbitmq` and its folders; the program itself stands here.
PROGRAMS = Path("/usr/lib/rabbitmq/bin")

#: The first bytes of an AMQP 0-9-1 connection.
GREETING = b"AMQP\x00\x00\x09\x01"

CONFIGURATION = """\
consumer_timeout = 86400000
loopback_users.guest = true
disk_free_limit.absolute = 50MB
"""

#: No spinning while idle; the node's port for other nodes is on loopback too.
ERLANG = "+sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}"


class RabbitMQ:
    """A node whose data is in `folder`; `port` is where AMQP answers, any free one unless given."""

    name = "rabbitmq"
    stop_signal = signal.SIGTERM
    orphan_signal = signal.SIGKILL  # quorum queues are made for it
    unprivileged_folder: Path | None = None
    console_pattern: re.Pattern[str] | None = None

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self.folder = folder
        self.port, self.peer_port, self.mapper_port = free_ports(3)
        self.port = port or self.port
        self.node = f"sangha-{self.port}@localhost"
        self._mapper: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def prepare(self) -> None:
        """Write the configuration and start the port mapper."""
        program("rabbitmq-server")
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "rabbitmq.conf").write_text(CONFIGURATION)
        (self.folder / "plugins").write_text("[].\n")
        (self.folder / "environment").touch()
        if self._mapper is None or self._mapper.poll() is not None:
            self._mapper = self._start_mapper()

    def command(self) -> list[str]:
        """The node in the foreground."""
        return [str(program("rabbitmq-server"))]

    def environment(self) -> Mapping[str, str]:
        """Everything that would point to the machine's own node points here."""
        return {
            "HOME": str(self.folder),  # the Erlang cookie
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.peer_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "environment"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ERLANG,
            "RUNNING_UNDER_SYSTEMD": "true",  # the node takes the place of the script, and so its pid
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self.mapper_port),
        }

    def ready(self, pid: int) -> bool:
        """Whether it answers to AMQP; its listener is the last thing that it starts."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(GREETING)
                return connection.recv(1) == b"\x01"
        except OSError:
            return False

    def control(self, *arguments: str) -> str:
        """What `rabbitmqctl` answers."""
        command = [str(program("rabbitmqctl")), "-q", "-n", self.node, *arguments]
        environment = os.environ | dict(self.environment())
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    def settle(self) -> None:
        """Write to disk which queues exist, before a kill -9.

        RabbitMQ 3.10 writes its table of quorum queues only every three minutes: a queue that was declared since then
        comes back from a kill -9 without a leader, and stays so.
        """
        self.control("eval", "[dets:sync(Table) || Table <- dets:all()].")

    def close(self) -> None:
        """After the node's end: end its port mapper."""
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait()
            self._mapper = None

    def _start_mapper(self) -> subprocess.Popen[bytes]:
        epmd = shutil.which("epmd")
        if epmd is None:
            raise ConfigurationError(
                "the program epmd is missing: install Erlang, on Debian with apt install erlang-base"
            )
        command = [epmd, "-port", str(self.mapper_port), "-address", "127.0.0.1"]
        return subprocess.Popen(
            launcher_command(command, signal.SIGKILL),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def program(name: str) -> Path:
    """One of RabbitMQ's programs."""
    found = PROGRAMS / name
    if found.exists():
        return found
    elsewhere = shutil.which(name)
    if elsewhere is None:
        raise ConfigurationError("RabbitMQ is missing: install it, on Debian with apt install rabbitmq-server")
    return Path(elsewhere)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on, all different."""
    listeners = [socket.socket() for _ in range(count)]
    try:
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()
