"""A Redis Cluster of three nodes, and a primary with a replica and a Sentinel, from the bundled Valkey."""

import contextlib
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import redis

from bench.harness.waiting import wait_until
from ops.child_process import ChildProcess
from ops.embedded_servers import running_server, valkey_binary
from ops.rabbitmq import free_ports

HOST = "127.0.0.1"
SLOTS = 16_384


class ValkeyNode:
    """A Valkey server on a TCP port, with further arguments; `sentinel` makes it a Sentinel."""

    stop_signal = signal.SIGTERM
    orphan_signal = signal.SIGTERM
    unprivileged_folder: Path | None = None
    console_pattern = None

    def __init__(self, folder: Path, port: int, arguments: Sequence[str] = (), *, sentinel: str = "") -> None:
        self.name = f"valkey-{port}"
        self.folder = folder / self.name
        self.port = port
        self.arguments = arguments
        self.sentinel = sentinel

    def prepare(self) -> None:
        """Create the folder, and the configuration of a Sentinel, which it changes itself."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.sentinel:
            (self.folder / "sentinel.conf").write_text(self.sentinel)

    def command(self) -> list[str]:
        """Return the command."""
        configuration = [str(self.folder / "sentinel.conf"), "--sentinel"] if self.sentinel else ["--save", ""]
        address = ["--port", str(self.port), "--bind", HOST, "--dir", str(self.folder)]
        return [str(valkey_binary()), *configuration, *address, *self.arguments]

    def environment(self) -> Mapping[str, str]:
        """Return no variables."""
        return {}

    def ready(self, pid: int) -> bool:
        """Return whether the server answers."""
        with self.client() as client, contextlib.suppress(redis.RedisError):
            return bool(client.ping())
        return False

    def client(self) -> redis.Redis:
        """Return a client of this server."""
        return redis.Redis(HOST, self.port, socket_timeout=2, protocol=2)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


@contextlib.contextmanager
def running_nodes(folder: Path, nodes: Sequence[ValkeyNode]) -> Iterator[list[ChildProcess]]:
    """Run servers."""
    for name in ("run", "logs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(running_server(node, folder / "run", folder / "logs")) for node in nodes]


@contextlib.contextmanager
def running_cluster(folder: Path) -> Iterator[str]:
    """Run a cluster of three primaries and yield its URL."""
    numbers = free_ports(6)
    ports, bus_ports = numbers[:3], numbers[3:]
    nodes = [ValkeyNode(folder, *pair) for pair in zip(ports, map(_cluster_arguments, bus_ports), strict=True)]
    with running_nodes(folder, nodes):
        for number, node in enumerate(nodes):
            with node.client() as client:
                first, end = (SLOTS * step // len(nodes) for step in (number, number + 1))
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                for other, bus_port in zip(nodes[:number], bus_ports, strict=False):
                    client.execute_command("CLUSTER", "MEET", HOST, other.port, bus_port)
        for node in nodes:
            wait_until(lambda node=node: _is_complete(node, len(nodes)))  # type: ignore[misc]
        yield f"redis+cluster://{HOST}:{ports[0]},{HOST}:{ports[1]}"


def _cluster_arguments(bus_port: int) -> list[str]:
    return ["--cluster-enabled", "yes", "--cluster-port", str(bus_port), "--cluster-node-timeout", "15000"]


def _is_complete(node: ValkeyNode, size: int) -> bool:
    with node.client() as client:
        state = bytes(client.execute_command("CLUSTER", "INFO"))
        return b"cluster_state:ok" in state and b"cluster_known_nodes:%d\r" % size in state


@contextlib.contextmanager
def running_sentinel(folder: Path) -> Iterator[tuple[str, ChildProcess]]:
    """Run a primary, its replica and a Sentinel. Yields the URL of the service and the primary."""
    primary_port, replica_port, sentinel_port = free_ports(3)
    primary = ValkeyNode(folder, primary_port)
    replica = ValkeyNode(folder, replica_port, ["--replicaof", HOST, str(primary_port)])
    configuration = f"""
        sentinel monitor chat {HOST} {primary_port} 1
        sentinel down-after-milliseconds chat 500
        sentinel failover-timeout chat 3000
    """
    sentinel = ValkeyNode(folder, sentinel_port, sentinel=configuration)
    with running_nodes(folder, [primary, replica, sentinel]) as (primary_process, *_):
        with sentinel.client() as client:
            wait_until(lambda: client.execute_command("SENTINEL", "REPLICAS", "chat"))
        with replica.client() as client:
            wait_until(lambda: client.info("replication")["master_link_status"] == "up")
        yield f"redis+sentinel://{HOST}:{sentinel_port}/chat", primary_process
