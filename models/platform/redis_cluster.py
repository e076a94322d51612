"""Use Redis Cluster like one server."""

import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import redis
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import AskError, ClusterDownError, NoScriptError, RedisClusterException, TryAgainError

from models.platform.redis_exchange import exchange

#: Replies of a node that does not serve the key at the moment.
REDIRECTIONS = (AskError, ClusterDownError, TryAgainError)


class Command(NamedTuple):
    """A command and the key that decides which node of a cluster executes it."""

    key: str
    arguments: Sequence[Any]


class ClusterClient:
    """A `RedisCluster` that connects on first use, as `redis.Redis` does.

    It raises redis.ConnectionError instead of exceptions that are no redis.RedisError, so that callers need not
    distinguish a cluster that is down from a server that is down.
    """

    def __init__(self, hosts: Sequence[tuple[str, int]], options: dict[str, Any]) -> None:
        self._hosts = hosts
        self._options = options
        self._cluster: RedisCluster | None = None
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connected(), name)

    def __enter__(self) -> "ClusterClient":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._cluster is not None:
            self._cluster.close()

    def connected(self) -> RedisCluster:
        """Return the client, after discovering the nodes. Raises redis.ConnectionError."""
        with self._lock:
            if self._cluster is None:
                nodes = [ClusterNode(host, port) for host, port in self._hosts]
                try:
                    self._cluster = _Cluster(startup_nodes=nodes, require_full_coverage=False, **self._options)
                except RedisClusterException as error:
                    raise redis.ConnectionError(str(error)) from error
            return self._cluster


class _Cluster(RedisCluster):
    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().execute_command(*args, **kwargs)  # type: ignore[no-untyped-call]
        except RedisClusterException as error:
            raise redis.ConnectionError(str(error)) from error


def execute_all(client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
    """Execute commands in one round trip, or in one per node of a cluster. Returns the replies; errors are among them.

    Raises redis.ConnectionError and TimeoutError if the server cannot be reached.
    """
    if isinstance(client, ClusterClient):
        return _execute_by_node(client.connected(), commands)
    return exchange(client, [command.arguments for command in commands])


def run_script(
    client: redis.Redis, sha: str, script: str, arguments: Sequence[Any], extra_commands: Sequence[Command] = ()
) -> Any:
    """Run a script by its hash, or by its text where the server lacks it. `arguments` begin with the number of keys.

    `extra_commands` are executed in the same round trip; their replies and errors are ignored.
    """
    try:
        if not extra_commands:
            return _execute(client, "EVALSHA", sha, *arguments)
        command = Command(arguments[1], ["EVALSHA", sha, *arguments])
        return _raise_if_error(execute_all(client, [*extra_commands, command])[-1])
    except NoScriptError:
        return _execute(client, "EVAL", script, *arguments)


def _execute(client: redis.Redis, *command: Any) -> Any:
    if isinstance(client, ClusterClient):
        return client.execute_command(*command)  # type: ignore[no-untyped-call]
    (reply,) = exchange(client, [command])
    return _raise_if_error(reply)


def _raise_if_error(reply: Any) -> Any:
    if isinstance(reply, Exception):
        raise reply
    return reply


def _execute_by_node(cluster: RedisCluster, commands: Sequence[Command]) -> list[Any]:
    """Execute commands with one pipeline per node: redis-py's pipelines of a cluster execute no scripts."""
    replies: list[Any] = [None] * len(commands)
    for node, positions in _positions_by_node(cluster, commands).items():
        for position, reply in zip(positions, _replies_of_node(cluster, node, commands, positions), strict=True):
            replies[position] = reply
    return [_redirected(cluster, *pair) for pair in zip(commands, replies, strict=True)]


def _positions_by_node(cluster: RedisCluster, commands: Sequence[Command]) -> dict[ClusterNode, list[int]]:
    grouped: dict[ClusterNode, list[int]] = defaultdict(list)
    for position, command in enumerate(commands):
        try:
            grouped[cluster.get_node_from_key(command.key)].append(position)
        except RedisClusterException as error:
            raise redis.ConnectionError(str(error)) from error
    return grouped


def _replies_of_node(
    cluster: RedisCluster, node: ClusterNode, commands: Sequence[Command], positions: Sequence[int]
) -> list[Any]:
    """Return the replies of a node. If it cannot be reached, each is the error, and the nodes are discovered again."""
    try:
        return exchange(cluster.get_redis_connection(node), [commands[position].arguments for position in positions])
    except (redis.ConnectionError, redis.TimeoutError) as error:
        _discover_nodes(cluster)
        return [error] * len(positions)


def _redirected(cluster: RedisCluster, command: Command, reply: Any) -> Any:
    """Execute a command again whose slot has moved to another node."""
    if not isinstance(reply, REDIRECTIONS):
        return reply
    try:
        return cluster.execute_command(*command.arguments)
    except (redis.RedisError, OSError) as error:
        return error


def _discover_nodes(cluster: RedisCluster) -> None:
    try:
        cluster.nodes_manager.initialize()
    except (redis.RedisError, RedisClusterException, OSError):
        return  # the next command tries again
