"""The servers of the cluster, as services that listen on the address of their host."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psycopg
import redis

from bench.chaos.standby import copy_primary
from bench.cluster.network import NETWORK, PREFIX, Host
from bench.harness.waiting import listens
from models.platform.errors import ConfigurationError
from ops.child_process import Service
from ops.embedded_servers import Postgres, valkey_binary
from ops.rabbitmq import PROTOCOL_HEADER, program

AMQP_PORT, EPMD_PORT, VALKEY_PORT, SENTINEL_PORT, S3_PORT = 5672, 4369, 6379, 26379, 9000

#: What the Sentinels call the servers of the journal.
SENTINEL_SERVICE = "journal"

#: The bucket, and the key with which S3 requests are signed.
BUCKET, KEY_ID, SECRET = "sangha", "key-of-the-cluster", "secret-of-the-cluster"

ACCESS = f"""\
local all all trust
host all all {NETWORK}.0/{PREFIX} trust
host replication all {NETWORK}.0/{PREFIX} trust
"""


FOLLOWS = "SELECT status FROM pg_stat_wal_receiver"


class NetworkedPostgres(Postgres):
    """Postgres on a host. It follows `primary`, the name of another host, if that is set when it starts."""

    def __init__(self, host: Host, folder: Path) -> None:
        super().__init__(folder / host.name, folder / f"{host.name}-sockets")
        self.name = host.name
        self.host = host
        self.primary: str | None = None

    @property
    def dsn(self) -> str:
        """The connection string of this server, whatever its role."""
        return f"postgresql://postgres@{self.host.address}/{self.database}"

    def prepare(self) -> None:
        """Create the data folder, that of a standby as a copy of the primary."""
        if self.primary is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        super().prepare()
        self._access_file.write_text(ACCESS)
        self._access_file.chmod(0o644)

    def command(self) -> list[str]:
        """Return the command."""
        settings = {
            "listen_addresses": self.host.address,
            "hba_file": str(self._access_file),
            "cluster_name": self.host.name,
            # A receiver that is cut off is noticed soon, or commits would wait for it.
            "wal_receiver_timeout": "5s",
            "wal_sender_timeout": "5s",
        }
        return [*super().command(), *(part for name, value in settings.items() for part in ("-c", f"{name}={value}"))]

    def ready(self, pid: int) -> bool:
        """Return whether the server accepts connections and, as a standby, follows its primary."""
        try:
            return execute(self, FOLLOWS) == ("streaming" if self.primary else None)
        except psycopg.Error:
            return False

    def _create_cluster(self) -> None:
        if self.primary is None:
            super()._create_cluster()
        else:
            copy_primary(self, self.primary)

    @property
    def _access_file(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}-access.conf")


class NetworkedServer:
    """A service that is ready when it listens on a port of its host."""

    stop_signal = signal.SIGTERM
    orphan_signal = signal.SIGKILL
    unprivileged_folder: Path | None = None
    console_pattern: re.Pattern[str] | None = None

    def __init__(self, name: str, host: Host, port: int, folder: Path) -> None:
        self.name = name
        self.host = host
        self.port = port
        self.folder = folder / name

    def prepare(self) -> None:
        """Create the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def environment(self) -> Mapping[str, str]:
        """Return no variables."""
        return {}

    def ready(self, pid: int) -> bool:
        """Return whether the server listens."""
        return listens((self.host.address, self.port))

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


class NetworkedValkey(NetworkedServer):
    """Valkey on a host. It follows `primary`, another host, if that is set when it starts."""

    def __init__(self, host: Host, folder: Path) -> None:
        super().__init__(host.name, host, VALKEY_PORT, folder)
        self.primary: Host | None = None

    def command(self) -> list[str]:
        """Return the command. Like the embedded server, it writes to the disk before it replies."""
        follow = ["--replicaof", self.primary.address, str(VALKEY_PORT)] if self.primary else []
        return [
            str(valkey_binary()), "--bind", self.host.address, "--protected-mode", "no", "--dir", str(self.folder),
            "--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction", "--maxmemory", "1gb",
            "--repl-timeout", "5", "--repl-diskless-sync-delay", "0", *follow,
        ]  # fmt: skip

    def ready(self, pid: int) -> bool:
        """Return whether the server answers, and follows its primary if it is a replica."""
        try:
            with redis.Redis(self.host.address, VALKEY_PORT, socket_timeout=2, socket_connect_timeout=2) as client:
                status = client.info("replication")
        except redis.RedisError:
            return False
        return bool(status["role"] == "master" or status["master_link_status"] == "up")


class Sentinel(NetworkedServer):
    """A Sentinel, which promotes the replica of the journal once two of them cannot reach the primary."""

    def __init__(self, name: str, host: Host, primary: Host, folder: Path) -> None:
        super().__init__(name, host, SENTINEL_PORT, folder)
        self.primary = primary

    def prepare(self) -> None:
        """Write the configuration once: the Sentinel stores in it what it has learned."""
        super().prepare()
        if not self._file.exists():
            self._file.write_text(
                f"sentinel monitor {SENTINEL_SERVICE} {self.primary.address} {VALKEY_PORT} 2\n"
                f"sentinel down-after-milliseconds {SENTINEL_SERVICE} 1000\n"
                f"sentinel failover-timeout {SENTINEL_SERVICE} 5000\n"
                f"sentinel announce-ip {self.host.address}\n"
            )

    def command(self) -> list[str]:
        """Return the command."""
        address = ["--bind", self.host.address, "--protected-mode", "no", "--port", str(SENTINEL_PORT)]
        return [str(valkey_binary()), str(self._file), "--sentinel", *address, "--dir", str(self.folder)]

    @property
    def _file(self) -> Path:
        return self.folder / "sentinel.conf"


class PortMapper(NetworkedServer):
    """The port mapper of Erlang, through which the nodes of RabbitMQ find each other's ports."""

    def __init__(self, host: Host, folder: Path) -> None:
        super().__init__(f"{host.name}-epmd", host, EPMD_PORT, folder)

    def command(self) -> list[str]:
        """Return the command."""
        epmd = shutil.which("epmd")
        if epmd is None:
            raise ConfigurationError("the program epmd is missing: on Debian, apt install erlang-base")
        return [epmd, "-address", self.host.address, "-port", str(EPMD_PORT)]


class RabbitMQNode(NetworkedServer):
    """A node of a RabbitMQ cluster. A node that is cut off from the others pauses."""

    def __init__(self, host: Host, nodes: Sequence[Host], folder: Path) -> None:
        super().__init__(host.name, host, AMQP_PORT, folder)
        self._nodes = nodes

    def prepare(self) -> None:
        """Write the configuration, with the cookie that all nodes share."""
        super().prepare()
        nodes = [
            f"cluster_formation.classic_config.nodes.{n} = rabbit@{each.name}" for n, each in enumerate(self._nodes, 1)
        ]
        lines = [
            "cluster_formation.peer_discovery_backend = classic_config", *nodes,
            "cluster_partition_handling = pause_minority", "consumer_timeout = 86400000", "loopback_users = none",
            "disk_free_limit.absolute = 50MB",
        ]  # fmt: skip
        (self.folder / "rabbitmq.conf").write_text("\n".join([*lines, ""]))
        (self.folder / "plugins").write_text("[].\n")
        (self.folder / "environment").touch()
        cookie = self.folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text("the cookie of the cluster")
            cookie.chmod(0o400)

    def command(self) -> list[str]:
        """Return the command."""
        return [str(program("rabbitmq-server"))]

    def environment(self) -> Mapping[str, str]:
        """Return variables that replace every path and address of the machine's own node."""
        interface = self.host.address.replace(".", ",")
        return {
            "HOME": str(self.folder),  # the Erlang cookie
            "RABBITMQ_NODENAME": f"rabbit@{self.host.name}",
            "RABBITMQ_NODE_IP_ADDRESS": self.host.address,
            "RABBITMQ_NODE_PORT": str(AMQP_PORT),
            "RABBITMQ_DIST_PORT": "25672",
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "environment"),
            # A lost node is noticed after about five seconds.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS":
                "+sbwt none +sbwtdcpu none +sbwtdio none -kernel net_ticktime 5 "
                f"-kernel inet_dist_use_interface {{{interface}}}",
            "RUNNING_UNDER_SYSTEMD": "true",  # the script replaces itself by the node, which keeps its pid
        }  # fmt: skip

    def ready(self, pid: int) -> bool:
        """Return whether the node answers to AMQP; a paused one does not listen."""
        return listens((self.host.address, AMQP_PORT), PROTOCOL_HEADER, b"\x01")

    def rabbitmqctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl` and return its output."""
        command = [str(program("rabbitmqctl")), "-q", "-n", f"rabbit@{self.host.name}", *arguments]
        environment = os.environ | dict(self.environment())
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


class S3Server(NetworkedServer):
    """An S3-compatible server that checks signatures, and keeps objects in its folder."""

    def __init__(self, host: Host, folder: Path) -> None:
        super().__init__(host.name, host, S3_PORT, folder)

    def prepare(self) -> None:
        """Create the bucket."""
        (self.folder / BUCKET).mkdir(parents=True, exist_ok=True)

    def command(self) -> list[str]:
        """Return the command."""
        address = ["--host", self.host.address, "--port", str(S3_PORT)]
        return [sys.executable, "-m", "nanio", "serve", *address, "--data-dir", str(self.folder)]

    def environment(self) -> Mapping[str, str]:
        """Return the key."""
        return {"NANIO_ACCESS_KEY": KEY_ID, "NANIO_SECRET_KEY": SECRET}


def s3_variables(host: Host) -> Mapping[str, str]:
    """Return the variables of processes that use the S3 server."""
    return {
        "AWS_ENDPOINT_URL": f"http://{host.name}:{S3_PORT}",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }


def execute(server: NetworkedPostgres, statement: str) -> object:
    """Execute a statement on one server; returns the first value."""
    with psycopg.connect(server.dsn, autocommit=True, connect_timeout=3) as connection:
        row = connection.execute(statement.encode())
        first = row.fetchone() if row.description else None
        return first[0] if first else None


def hosted(service: Service) -> Host | None:
    """Return the host of a service of this module."""
    host = getattr(service, "host", None)
    return host if isinstance(host, Host) else None
