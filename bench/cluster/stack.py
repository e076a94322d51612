"""The processes of the cluster: each on a host of its own, behind a gateway, with replicated servers."""

import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import redis

from bench.chaos import previous
from bench.chaos.processes import ENGINES, LIGHT, SCHEDULERS, WEBS, WORKERS, set_version
from bench.chaos.supervised_processes import SupervisedProcesses
from bench.chaos.transcripts import SCRIPT
from bench.cluster.gateway import TLS_PORT, WEB_PORT, Gateway
from bench.cluster.namespaces import entered
from bench.cluster.network import Host, Network
from bench.cluster.postgres_pair import PostgresPair
from bench.cluster.servers import (
    AMQP_PORT,
    BUCKET,
    SENTINEL_PORT,
    SENTINEL_SERVICE,
    NetworkedPostgres,
    NetworkedValkey,
    PortMapper,
    RabbitMQNode,
    S3Server,
    Sentinel,
    hosted,
    s3_variables,
)
from bench.harness.client import Address, TlsAddress
from bench.harness.processes import (
    ConfiguredProcess,
    ConfiguredScheduler,
    ConfiguredWeb,
    ConfiguredWorker,
    ProcessGroup,
    changed,
    signal_tree,
)
from bench.harness.stack import LIGHT_POOLS
from models.platform.migrate import migrate
from models.platform.settings import Settings
from ops.child_process import ChildProcess, Service

GATEWAY, S3 = "gateway", "s3"
POSTGRES, VALKEY = ("postgres-a", "postgres-b"), ("valkey-a", "valkey-b")
RABBITMQ = ("rabbitmq-1", "rabbitmq-2", "rabbitmq-3")
SANGHA = (*WEBS, *WORKERS, *SCHEDULERS)
HOSTS = (GATEWAY, *SANGHA, *POSTGRES, *VALKEY, *RABBITMQ, S3)

#: The port of the metrics of a web process.
METRICS_PORT = 9100

#: Slots of each engine.
SLOTS = 4


class HostedChild(ChildProcess):
    """A process in the network namespace of its host."""

    def __init__(self, service: Service, host: Host, run_folder: Path, log_folder: Path) -> None:
        super().__init__(service, run_folder, log_folder)
        self.host = host

    def start(self) -> None:
        """Start the process on its host."""
        with entered(self.host.namespace):
            super().start()


class HostedProcesses(ProcessGroup):
    """Processes on the hosts of a network: servers on their own, others on the host of their name."""

    def __init__(self, network: Network, folder: Path) -> None:
        super().__init__(folder)
        self.network = network

    def launch(self, service: Service) -> ChildProcess:
        """Start a service on its host without waiting for it."""
        host = hosted(service) or self.network.hosts[service.name]
        child = HostedChild(service, host, self.folder / "run", self.folder / "logs")
        self.children[service.name] = child
        child.start()
        return child


class ClusterStack(SupervisedProcesses):
    """All hosts and processes. No worker has a supervisor that reports its death: its jobs wait for its lease's end."""

    processes: HostedProcesses

    def __init__(self, network: Network, folder: Path, slots: int, previous: Path | None) -> None:
        self.network = network
        hosts = network.hosts
        self.gateway = Gateway(hosts[GATEWAY], [hosts[name] for name in WEBS], folder)
        self.postgres = PostgresPair(*(NetworkedPostgres(hosts[name], folder) for name in POSTGRES))
        self.valkeys = {name: NetworkedValkey(hosts[name], folder) for name in VALKEY}
        self.rabbitmqs = {
            name: RabbitMQNode(hosts[name], [hosts[each] for each in RABBITMQ], folder) for name in RABBITMQ
        }
        super().__init__(HostedProcesses(network, folder), settings_of(network, folder, slots), previous)

    @property
    def addresses(self) -> Sequence[Address]:
        """The address of the gateway."""
        return [TlsAddress((GATEWAY, TLS_PORT))]

    @property
    def metrics_addresses(self) -> Mapping[str, Address]:
        """The addresses of the metrics of the web processes, by name."""
        return {name: (name, METRICS_PORT) for name in WEBS}

    @property
    def rabbitmqctl(self) -> Callable[..., str]:
        """Run `rabbitmqctl` on the first node."""
        return self.rabbitmqs[RABBITMQ[0]].rabbitmqctl

    def start_all(self, migrate_first: Callable[[str], object]) -> None:
        """Start the servers, migrate the database, and start Sangha's processes and the gateway. Raises Unavailable."""
        self.processes.start(
            self.postgres.primary, self.valkeys[VALKEY[0]], S3Server(self.network.hosts[S3], self.folder)
        )
        self._start_rabbitmq()
        self._start_replicas()
        migrate_first(self.postgres.primary.dsn)
        self.processes.start(*self._sangha_processes())
        self.processes.start(self.gateway)
        os.environ["SSL_CERT_FILE"] = str(self.gateway.authority)

    def names_on(self, host: str) -> Sequence[str]:
        """Return the names of the processes on a host."""
        return [
            name for name, child in self.children.items() if isinstance(child, HostedChild) and child.host.name == host
        ]

    def cut_off(self, host: str) -> None:
        """Cut a host off. Its leases may expire meanwhile, as if its worker had died."""
        self.network.cut_off(host)
        self._record_death(host)

    def kill_host(self, host: str) -> None:
        """Kill all processes of a host at once, as a loss of power does."""
        for name in self.names_on(host):
            self.kill(name)

    def start_host(self, host: str) -> None:
        """Start all processes of a host. A server of the journal follows the one that the Sentinels name."""
        if host in self.valkeys:
            primary = self.journal_primary()
            self.valkeys[host].primary = None if primary == host else self.network.hosts[primary]
        for name in self.names_on(host):
            self.start(name)

    def journal_primary(self) -> str:
        """Return the name of the host whose server the Sentinels call the primary of the journal."""
        with redis.Redis(RABBITMQ[0], SENTINEL_PORT, socket_timeout=2) as sentinel:
            address, _ = sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SENTINEL_SERVICE)
        return next(name for name in VALKEY if self.network.hosts[name].address == address.decode())

    def fail_over(self, *, cut_off: bool) -> None:
        """Lose the host of Postgres' primary, and promote its standby.

        cut_off  whether the host is cut off first, so that its connections are not closed
        """
        self.postgres.wait_synchronous()
        lost = self.postgres.primary.host.name
        if cut_off:
            self.network.cut_off(lost)
        self.kill_host(lost)  # a manager must fence it before it promotes the other one
        self.postgres.promote()

    def supervise(self) -> None:
        """Start processes again that have ended, and let commits wait for the standby again when it is back."""
        super().supervise()
        self.postgres.keep_synchronous()

    def stop(self) -> None:
        """Stop all processes."""
        for child in self.children.values():
            if child.running:
                signal_tree(child.pid, signal.SIGCONT)
        self.database.close()
        self.processes.stop(*(self.children[name] for name in (*SANGHA, GATEWAY) if name in self.children))
        self.processes.stop()

    def _start_rabbitmq(self) -> None:
        """Start the nodes one after the other: the first one makes the cluster, the others join it."""
        hosts = [self.network.hosts[name] for name in RABBITMQ]
        self.processes.start(*(PortMapper(host, self.folder) for host in hosts))
        for node in self.rabbitmqs.values():
            self.processes.start(node)

    def _start_replicas(self) -> None:
        primary, replica = (self.valkeys[name] for name in VALKEY)
        replica.primary = primary.host
        self.postgres.standby.primary = self.postgres.primary.host.name
        sentinels = [
            Sentinel(f"sentinel-{number}", self.network.hosts[name], primary.host, self.folder)
            for number, name in enumerate(RABBITMQ, 1)
        ]
        self.processes.start(replica, self.postgres.standby)
        self.processes.start(*sentinels)
        self.postgres.keep_synchronous()

    def _sangha_processes(self) -> list[ConfiguredProcess]:
        processes: list[ConfiguredProcess] = [
            *(ConfiguredWeb(self._settings_on(name, host=name, port=WEB_PORT), name) for name in WEBS),
            *(ConfiguredWorker(name, self._settings_on(name), ["inference"]) for name in ENGINES),
            ConfiguredWorker(LIGHT, self._settings_on(LIGHT), LIGHT_POOLS),
            *(ConfiguredScheduler(self._settings_on(name), name) for name in SCHEDULERS),
        ]
        for process in processes:
            set_version(process, self.previous)
        return processes

    def _settings_on(self, name: str, **changes: object) -> Settings:
        """Return the settings of a process: it has a data folder of its own, as on a host of its own."""
        if name in WEBS:
            changes["metrics_address"] = f"{name}:{METRICS_PORT}"
        return changed(self.settings, data_dir=self.folder / "data" / name, **changes)


def settings_of(network: Network, folder: Path, slots: int) -> Settings:
    """Return the settings of all processes."""
    sentinels = ",".join(f"{name}:{SENTINEL_PORT}" for name in RABBITMQ)
    return Settings.model_validate(
        {
            "data_dir": folder / "data" / "clients",
            "database_url": f"postgresql://postgres@{','.join(POSTGRES)}/sangha?target_session_attrs=read-write",
            "redis_url": f"redis+sentinel://{sentinels}/{SENTINEL_SERVICE}",
            "broker_url": f"amqp://guest:guest@rabbitmq:{AMQP_PORT}/",
            "object_store": f"s3://{BUCKET}/files",
            "secret_key": "a secret of the harness",
            "public_url": f"https://{GATEWAY}",
            "trusted_proxies": network.hosts[GATEWAY].address,
            "visits_per_minute": 1_000_000,  # all clients have the same IP address
            "egress_allow": (network.clients.address,),
            "engine": "scripted",
            "script": SCRIPT,
            "slots": slots,
            "reflection": "on",
            "reflection_calls": 2,
        }
    )


@contextmanager
def cluster_stack(slots: int = SLOTS, *, previous_commit: str | None = None) -> Iterator[ClusterStack]:
    """Run a cluster in a temporary folder until the end of the block. Call it in private namespaces.

    previous_commit  the version to begin with, which `upgrade` replaces

    Raises ConfigurationError where a program is missing, and Unavailable where a process does not start.
    """
    with ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="sangha-cluster-")))
        code = None
        if previous_commit is not None:
            code = folder / "previous"
            code.mkdir()
            previous.extract_code(previous_commit, code)
        network = Network(HOSTS, {"rabbitmq": RABBITMQ}, folder)
        os.environ |= s3_variables(network.hosts[S3])
        stack = ClusterStack(network, folder, slots, code)
        exits.callback(stack.stop)
        stack.start_all(partial(previous.migrate, code) if code else migrate)
        yield stack
