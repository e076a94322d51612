"""The stack that is broken: servers, and Sangha's processes behind links, in one temporary folder."""

import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path

from bench.chaos import previous
from bench.chaos.processes import (
    ENDPOINT,
    SERVERS,
    UPSTREAM,
    WORKERS,
    open_links,
    postgres_socket,
    sangha_processes,
    upstream_worker,
)
from bench.chaos.proxy import Link, Links
from bench.chaos.spilling import endpoint_settings, start_endpoint
from bench.chaos.standby import Standby, lose_commits, promote, wait_for_replication
from bench.chaos.supervised_processes import SupervisedProcesses
from bench.chaos.transcripts import SCRIPT
from bench.harness.endpoint.client import ScriptedEndpoint
from bench.harness.processes import signal_tree
from bench.harness.stack import BrokerName, Servers, temporary_servers
from models.platform.migrate import migrate

#: Slots of each engine: too few for all clients, so that some turns always wait.
SLOTS = 4


class ChaosStack(SupervisedProcesses):
    """All processes and links, by name."""

    supervised = ("inference-a", "light")

    def __init__(
        self,
        servers: Servers,
        broker: BrokerName,
        slots: int,
        links: Links,
        previous: Path | None = None,
        endpoint: ScriptedEndpoint | None = None,
    ) -> None:
        self.servers = servers
        self.broker = broker
        self.direct_link = links.open("direct", postgres_socket(servers.postgres))
        self._links = links
        self._standbys = count(1)
        self.links: dict[str, Link] = {}
        changes = {"engine": "scripted", "script": SCRIPT, "slots": slots, "reflection": "on", "reflection_calls": 2,
                   "egress_allow": ("127.0.0.1",), **(endpoint_settings(endpoint) if endpoint else {})}  # fmt: skip
        # All clients have the same IP address.
        direct = f"postgresql://postgres@127.0.0.1:{self.direct_link.port}/sangha"
        settings = servers.settings(broker, **changes, visits_per_minute=1_000_000, database_url=direct)
        super().__init__(servers, settings, previous, endpoint)

    @property
    def workers(self) -> Sequence[str]:
        """The names of the workers."""
        return WORKERS if self.endpoint is None else (*WORKERS, UPSTREAM)

    @property
    def rabbitmqctl(self) -> Callable[..., str] | None:
        """Run `rabbitmqctl`, where RabbitMQ is the broker."""
        return self.servers.rabbitmq.rabbitmqctl if self.broker == "rabbitmq" else None

    def start_all(self) -> None:
        """Open the links, and start Sangha's processes. Raises Unavailable."""
        self.links.update(open_links(self._links, self.servers, self.broker))
        self.servers.start(*sangha_processes(self.settings, self.links, self.previous))
        if self.previous is None:
            self._start_new_processes()

    def start_standby(self) -> None:
        """Copy Postgres, and start the copy as its standby."""
        name = f"postgres-{next(self._standbys)}"
        folder = self.folder / name
        self.servers.launch(Standby(folder, self.folder / f"{name}-sockets", self.servers.postgres))

    def fail_over(self) -> None:
        """Kill Postgres after commits that its standby has not received."""
        wait_for_replication(self.servers.postgres)
        self.lost_commits.append(lose_commits(self._standby, lambda: self.kill("postgres")))

    def promote_standby(self) -> None:
        """Make the standby the primary, for all links, and start another standby."""
        server, child = self._standby, self.children.pop("standby")
        promote(server)
        child.name = server.name = "postgres"
        self.children["postgres"], self.servers.postgres = child, server
        self.killed.discard("postgres")
        for link in [self.direct_link, *(link for name, link in self.links.items() if name.endswith("-postgres"))]:
            link.target = postgres_socket(server)
            link.cut()
        self.start_standby()

    def stop(self) -> None:
        """Stop Sangha's processes."""
        for child in self.children.values():
            if child.running:
                signal_tree(child.pid, signal.SIGCONT)
        servers = {*SERVERS, ENDPOINT, "standby"}
        self.servers.stop(*(child for name, child in self.children.items() if name not in servers))
        self.database.close()

    def _start_new_processes(self) -> None:
        """Start the worker that asks the endpoint, once the tables that it needs exist."""
        if self.endpoint is not None:
            self.servers.start(upstream_worker(self.settings, self.links))

    @property
    def _standby(self) -> Standby:
        service = self.children["standby"].service
        assert isinstance(service, Standby)
        return service


@contextmanager
def chaos_stack(
    broker: BrokerName,
    slots: int = SLOTS,
    *,
    standby: bool = False,
    previous_commit: str | None = None,
    spills: bool = False,
) -> Iterator[ChaosStack]:
    """Run a stack in a temporary folder until the end of the block. Each engine has `slots` slots.

    spills           whether turns spill to an endpoint
    previous_commit  the version to begin with, which `upgrade` replaces

    Raises ConfigurationError where a program is missing, and Unavailable where a process does not start.
    """
    with ExitStack() as exits:
        code = None
        if previous_commit is not None:
            code = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="sangha-previous-")))
            previous.extract_code(previous_commit, code)
        migrate_first = partial(previous.migrate, code) if code else migrate
        servers = exits.enter_context(temporary_servers(broker, "sangha-chaos-", migrate_first))
        links = exits.enter_context(Links())
        stack = ChaosStack(servers, broker, slots, links, code, start_endpoint(servers) if spills else None)
        exits.callback(stack.stop)
        stack.start_all()
        if standby:
            stack.start_standby()
        yield stack
