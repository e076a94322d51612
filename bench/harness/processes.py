"""Child processes by name: start, kill, restart and stop them, and read what they use."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import psutil  # type: ignore[import-untyped]

from models.jobs import workers
from models.platform.database import Database
from models.platform.operator_servers import operator_server_variables
from models.platform.script import Script
from models.platform.settings import Settings, variable_name
from models.platform.upstreams import upstream_variables
from ops.child_process import ChildProcess, Service
from ops.sangha_services import SanghaProcess, SchedulerProcess, WebProcess, WorkerProcess

#: Seconds that a process has to become ready (a worker loads its model), and to end gracefully.
START_TIMEOUT, STOP_TIMEOUT = 120.0, 5.0


def environment_of(settings: Settings) -> dict[str, str]:
    """Return all settings as variables. An empty one counts as unset, whatever the caller's environment has."""
    unset = {name: "" for name in os.environ if name.startswith("SANGHA_")}
    values = {variable_name(name): _text(getattr(settings, name)) for name in Settings.model_fields}
    lists = upstream_variables(settings.upstreams) | operator_server_variables(settings.mcp_servers)
    return unset | values | lists


def _text(value: object) -> str:
    if isinstance(value, Script):
        return ",".join(f"{name}={item}" for name, item in value.model_dump(exclude_none=True).items())
    if isinstance(value, tuple):  # upstreams and servers have variables of their own; no stack has OIDC providers
        return ",".join(each for each in value if isinstance(each, str))
    return "" if value is None else str(value)


def changed(settings: Settings, **changes: object) -> Settings:
    """Return the settings with changes, validated."""
    return Settings.model_validate(settings.model_dump(exclude_none=True) | changes)


class ConfiguredProcess(SanghaProcess):
    """A process of Sangha that gets all of its settings, and nothing else, from the harness.

    child_settings  what the process gets where that differs from what its readiness check uses, as behind a proxy
    variables       more variables, which precede those of the settings
    """

    child_settings: Settings | None = None
    variables: Mapping[str, str] = MappingProxyType({})

    def environment(self) -> Mapping[str, str]:
        """Return all settings, and the other variables."""
        return environment_of(self.child_settings or self.settings) | dict(self.variables)


class ConfiguredWeb(ConfiguredProcess, WebProcess):
    """A web process."""

    def __init__(self, settings: Settings, name: str = "web") -> None:
        super().__init__(settings)
        self.name = name


class ConfiguredWorker(ConfiguredProcess, WorkerProcess):
    """A worker."""


class ConfiguredScheduler(ConfiguredProcess, SchedulerProcess):
    """A scheduler."""

    def __init__(self, settings: Settings, name: str = "scheduler") -> None:
        super().__init__(settings)
        self.name = name


class ProcessGroup:
    """Child processes by name, with their pid files in `folder`/run and their logs in `folder`/logs.

    They live as long as the thread that started them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: dict[str, ChildProcess] = {}
        for name in ("run", "logs"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def start(self, *services: Service) -> list[ChildProcess]:
        """Start services in parallel, and wait until all are ready. Raises Unavailable."""
        children = [self.launch(service) for service in services]
        for child in children:
            child.wait_ready(START_TIMEOUT)
        return children

    def launch(self, service: Service) -> ChildProcess:
        """Start a service without waiting for it."""
        child = self.children[service.name] = ChildProcess(service, self.folder / "run", self.folder / "logs")
        child.start()
        return child

    def remove(self, child: ChildProcess) -> None:
        """Kill a process and remove it from the group."""
        child.kill()
        child.clear()
        self.children.pop(child.name, None)

    def stop(self, *children: ChildProcess) -> None:
        """Stop the named processes, or all, in parallel, and remove them from the group."""
        stopping = children or [*self.children.values()]
        for child in stopping:
            child.signal(child.service.stop_signal)
        for child in stopping:
            child.wait(STOP_TIMEOUT)
            child.service.close()
            self.children.pop(child.name, None)

    @contextmanager
    def running(self, services: Sequence[Service]) -> Iterator[Mapping[str, ChildProcess]]:
        """Run services until the end of the block."""
        names = [service.name for service in services]
        try:
            self.start(*services)
            yield {name: self.children[name] for name in names}
        finally:
            if left := [self.children[name] for name in names if name in self.children]:
                self.stop(*left)


def restart(child: ChildProcess) -> None:
    """Start a process again that has ended, and wait until it is ready."""
    child.clear()
    child.start()
    child.wait_ready(START_TIMEOUT)


def release_jobs(database: Database, pid: int) -> int:
    """Release the jobs of a dead worker, as the supervisor of `sangha up` does; returns their number."""
    return workers.release_jobs_of_dead_worker(database, socket.gethostname(), pid).running


def signal_tree(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process and its descendants, if they live."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in process_tree(psutil.Process(pid)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)


def kill_tree(pid: int) -> None:
    """Kill a process and its descendants: Postgres is only dead when its sessions are."""
    signal_tree(pid, signal.SIGSTOP)  # or the survivors would notice the first deaths and clean up
    signal_tree(pid, signal.SIGKILL)


def process_tree(process: psutil.Process) -> list[psutil.Process]:
    """Return a process and its descendants."""
    return [process, *process.children(recursive=True)]


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU seconds that a process has used so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def tree_cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and of its living descendants."""
    return sum(map(cpu_seconds, process_tree(psutil.Process(pid))))
