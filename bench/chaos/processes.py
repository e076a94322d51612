"""Sangha's processes in chaos, and the links through which they reach the servers.

There is a link for each kind of process and server, which can be made to fail. Checker and clients connect directly.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.chaos import previous
from bench.chaos.proxy import Link, Links
from bench.harness.processes import ConfiguredProcess, ConfiguredScheduler, ConfiguredWeb, ConfiguredWorker
from bench.harness.stack import LIGHT_POOLS, BrokerName, Servers
from models.platform.settings import Settings
from models.platform.upstreams import upstream_variables
from ops.embedded_servers import Postgres
from ops.rabbitmq import free_ports

WEBS = ("web-a", "web-b")
ENGINES = ("inference-a", "inference-b")
LIGHT = "light"
WORKERS = (*ENGINES, LIGHT)
SCHEDULERS = ("scheduler-a", "scheduler-b")

#: The worker that asks the endpoint, and the endpoint, where the run has one.
UPSTREAM, ENDPOINT = "upstream", "endpoint"

SERVERS = ("postgres", "valkey", "rabbitmq")

#: The kinds of processes that have links of their own, and their links.
KINDS = ("web", "worker", "scheduler")
LINKS = tuple(f"{kind}-{server}" for kind in KINDS for server in ("postgres", "valkey"))

#: The seconds by which the clock of the last web process is behind, and the folder of the module that shifts it.
CLOCK_SKEW, SKEWED_CLOCK = -1.5, Path(__file__).with_name("skewed_clock")

#: Links to RabbitMQ: one of all processes, and before it one of a single worker, whose messages another worker gets.
QUEUE_LINKS = ("all-rabbitmq", "inference-a-rabbitmq")


def open_links(links: Links, servers: Servers, broker: BrokerName) -> dict[str, Link]:
    """Open all links, and return them by name."""
    sockets = {"postgres": postgres_socket(servers.postgres), "valkey": servers.valkey.socket}
    opened = {name: links.open(name, sockets[name.partition("-")[2]]) for name in LINKS}
    port = servers.rabbitmq.port
    for name in QUEUE_LINKS if broker == "rabbitmq" else ():
        opened[name] = links.open(name, ("127.0.0.1", port))
        port = opened[name].port
    return opened


def sangha_processes(
    settings: Settings, links: Mapping[str, Link], previous_code: Path | None
) -> list[ConfiguredProcess]:
    """Return all processes but the upstream worker, behind their links. `previous_code` is that of another version."""
    ports = zip(WEBS, free_ports(len(WEBS)), strict=True)
    webs = [ConfiguredWeb(settings.model_copy(update={"port": port}), name) for name, port in ports]
    engines = [ConfiguredWorker(name, settings, ["inference"]) for name in ENGINES]
    light = ConfiguredWorker(LIGHT, settings, LIGHT_POOLS)
    schedulers = [ConfiguredScheduler(settings, name) for name in SCHEDULERS]
    by_kind: dict[str, Sequence[ConfiguredProcess]] = {
        "web": webs,
        "worker": [*engines, light],
        "scheduler": schedulers,
    }
    for kind, processes in by_kind.items():
        for process in processes:
            process.child_settings = _through_links(process, kind, links)
            set_version(process, previous_code)
    return [process for processes in by_kind.values() for process in processes]


def upstream_worker(settings: Settings, links: Mapping[str, Link]) -> ConfiguredWorker:
    """Return the worker that asks the endpoint, behind its links. The previous version has none."""
    worker = ConfiguredWorker(UPSTREAM, settings, ["upstream"])
    worker.child_settings = _through_links(worker, "worker", links)
    return worker


def _through_links(process: ConfiguredProcess, kind: str, links: Mapping[str, Link]) -> Settings:
    """Return the settings of a process that connects through the links of its kind."""
    queue = links.get(f"{process.name}-rabbitmq") or links.get("all-rabbitmq")
    changes = {
        "database_url": f"postgresql://postgres@127.0.0.1:{links[f'{kind}-postgres'].port}/sangha",
        "redis_url": f"redis://127.0.0.1:{links[f'{kind}-valkey'].port}",
        "broker_url": f"amqp://guest:guest@127.0.0.1:{queue.port}/" if queue else None,
    }
    return process.settings.model_copy(update=changes)


def set_version(process: ConfiguredProcess, code: Path | None) -> None:
    """Let the process run that code from its next start on, with the pools it knows; None: the code of this version."""
    process.variables = _variables_of(process.name, code, process.settings)
    if process.name == LIGHT:
        pools = [pool for pool in LIGHT_POOLS if code is None or pool not in previous.UNKNOWN_POOLS]
        process.arguments = ["worker", *pools]


def _variables_of(name: str, code: Path | None, settings: Settings) -> Mapping[str, str]:
    """Return the variables of a process of a version, whose previous one knows no endpoint.

    The clock of the last web process is behind.
    """
    unknown = dict.fromkeys(upstream_variables(settings.upstreams), "")
    variables = {**previous.variables(code), **unknown} if code else {}
    if name == WEBS[-1]:
        folders = [str(SKEWED_CLOCK), variables.get("PYTHONPATH", "")]
        variables |= {"PYTHONPATH": os.pathsep.join(filter(None, folders)), "CHAOS_CLOCK_SKEW": str(CLOCK_SKEW)}
    return variables


def postgres_socket(server: Postgres) -> Path:
    """Return the socket of a server."""
    return server.sockets / ".s.PGSQL.5432"
