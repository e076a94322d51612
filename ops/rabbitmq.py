"""A private RabbitMQ node for tests and measurements, from the machine's own rabbitmq-server.

`sangha up` never starts one: to use RabbitMQ, run it and set SANGHA_BROKER_URL. The node listens on loopback only, on
ports of its own, keeps everything in one folder, and starts its own port mapper (epmd), which otherwise would stay
behind as a daemon. Its data survives a kill -9.
"""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from models.platform.errors import ConfigurationError
from ops.child_process import launcher_command

#: The programs themselves; Debian's wrappers in /usr/sbin change to the user `rabbitmq` and its folders.
PROGRAMS = Path("/usr/lib/rabbitmq/bin")

#: The first bytes of an AMQP 0-9-1 connection.
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"

CONFIGURATION = """\
consumer_timeout = 86400000
loopback_users.guest = true
disk_free_limit.absolute = 50MB
"""

#: Do not busy-wait while idle; listen for other nodes on loopback only.
ERLANG_OPTIONS = "+sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}"

#: Where free ports are searched: no system takes them for outgoing connections.
LISTENER_PORTS = range(10_000, 32_768)


class RabbitMQ:
    """A node with its data in `folder`; `port` is the AMQP port, by default a free one."""

    name = "rabbitmq"
    stop_signal = signal.SIGTERM
    orphan_signal = signal.SIGKILL  # quorum queues survive it
    unprivileged_folder: Path | None = None
    console_pattern: re.Pattern[str] | None = None

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self.folder = folder
        self.port, self.node_port, self.epmd_port = free_ports(3)
        self.port = port or self.port
        self.node = f"sangha-{self.port}@localhost"
        self._epmd: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of the node."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def prepare(self) -> None:
        """Write the configuration and start the port mapper. Raises ConfigurationError without RabbitMQ."""
        program("rabbitmq-server")
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "rabbitmq.conf").write_text(CONFIGURATION)
        (self.folder / "plugins").write_text("[].\n")
        (self.folder / "environment").touch()
        if self._epmd is None or self._epmd.poll() is not None:
            self._epmd = self._start_epmd()

    def command(self) -> list[str]:
        """Return the command."""
        return [str(program("rabbitmq-server"))]

    def environment(self) -> Mapping[str, str]:
        """Return variables that replace every path and port of the machine's own node."""
        return {
            "HOME": str(self.folder),  # the Erlang cookie
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.node_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "environment"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ERLANG_OPTIONS,
            "RUNNING_UNDER_SYSTEMD": "true",  # the script replaces itself by the node, which keeps its pid
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self.epmd_port),
        }

    def ready(self, pid: int) -> bool:
        """Return whether the node answers to AMQP; its listener is started last."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(PROTOCOL_HEADER)
                return connection.recv(1) == b"\x01"
        except OSError:
            return False

    def rabbitmqctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl` and return its output."""
        command = [str(program("rabbitmqctl")), "-q", "-n", self.node, *arguments]
        environment = os.environ | dict(self.environment())
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    def sync_queues(self) -> None:
        """Write the table of queues to disk, before a kill -9.

        RabbitMQ 3.10 writes its table of quorum queues every three minutes: after a kill -9, a queue that was declared
        since has no leader.
        """
        self.rabbitmqctl("eval", "[dets:sync(Table) || Table <- dets:all()].")

    def close(self) -> None:
        """Kill the port mapper, after the node has exited."""
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()
            self._epmd = None

    def _start_epmd(self) -> subprocess.Popen[bytes]:
        epmd = shutil.which("epmd")
        if epmd is None:
            raise ConfigurationError(
                "the program epmd is missing: install Erlang, on Debian with `apt install erlang-base`"
            )
        command = [epmd, "-port", str(self.epmd_port), "-address", "127.0.0.1"]
        return subprocess.Popen(
            launcher_command(command, signal.SIGKILL),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def program(name: str) -> Path:
    """Return the path of one of RabbitMQ's programs. Raises ConfigurationError when it is not installed."""
    path = PROGRAMS / name
    if path.exists():
        return path
    path_from_environment = shutil.which(name)
    if path_from_environment is None:
        raise ConfigurationError("RabbitMQ is missing: install it, on Debian with `apt install rabbitmq-server`")
    return Path(path_from_environment)


def free_ports(count: int) -> list[int]:
    """Return distinct free ports of the loopback interface.

    They are below the range from which systems choose the ports of outgoing connections. While a server restarts, a
    client that reconnects could otherwise be given the server's own port, and hold it.
    """
    listeners: list[socket.socket] = []
    try:
        while len(listeners) < count:
            listeners.append(_bound_socket())
        return [listener.getsockname()[1] for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()


def _bound_socket() -> socket.socket:
    while True:
        listener = socket.socket()
        try:
            listener.bind(("127.0.0.1", random.choice(LISTENER_PORTS)))
        except OSError:
            listener.close()
        else:
            return listener
