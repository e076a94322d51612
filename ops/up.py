"""`sangha up`: run everything on one machine, in the foreground, until Ctrl-C."""

import logging
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib.util import find_spec

import click
import psycopg

from models.jobs.catalogue import POOLS
from models.platform import metrics, process_gauges
from models.platform.errors import Unavailable
from models.platform.exposition import Exposition
from models.platform.monitoring import MonitoringServer
from models.platform.settings import Settings, variable_name
from models.serving.queues import model_queue
from ops import preflight
from ops.child_process import Service
from ops.dead_worker_releaser import DeadWorkerReleaser
from ops.embedded_servers import Postgres, Valkey, create_private_folder
from ops.messages import first_line
from ops.model_options import NamedModel, model_arguments
from ops.sangha_services import SanghaProcess, SchedulerProcess, WebProcess, WorkerProcess
from ops.supervisor import Supervisor
from ops.version import version
from ops.web_connection import connectable_host
from pipelines.inference.openai import pool_models

log = logging.getLogger(__name__)

FIRST_CALL = """
Sangha is listening at {address}   (Ctrl-C stops it; the data stays in {home})

To make a first call, paste this into a second terminal:

TOKEN=$(curl -s {address}/signup -H 'Content-Type: application/json' \\
  -d '{{"email": "me-'$(date +%s)-$$'@example.com", "password": "correct horse battery staple"}}' \\
  | sed 's/.*"token": *"\\([^"]*\\)".*/\\1/')
curl -sN {address}/v1/responses -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \\
  -d '{{"model": "default", "input": "Say hello in one sentence.", "stream": true}}'

The same with the OpenAI client, after the lines above:

{install}OPENAI_API_KEY=$TOKEN OPENAI_BASE_URL={address}/v1 {python} -c '
from openai import OpenAI
for event in OpenAI().responses.create(model="default", input="Say hello in one sentence.", stream=True):
    if event.type == "response.output_text.delta":
        print(event.delta, end="", flush=True)
print()'
"""


def up(settings: Settings, models: Sequence[NamedModel] = ()) -> None:
    """Start everything, print a first call, and keep it running until INT, TERM or HUP.

    Raises ConfigurationError or Unavailable when something cannot be started.
    """
    with preflight.data_folder_lock(settings.home):
        preflight.check_free_disk(settings.home)
        preflight.check_certificate(settings)
        settings = settings.model_copy(update={"port": preflight.choose_port(settings)})
        run_folder, log_folder = settings.home / "run", settings.home / "logs"
        for folder in (run_folder, log_folder, settings.socket_dir):
            create_private_folder(folder)
        supervisor = Supervisor(run_folder, log_folder, print_line)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, supervisor.request_stop)
        with metrics_served(settings, supervisor):
            try:
                run(settings, supervisor, models)
            finally:
                supervisor.stop()
                print_line("Stopped.")


@contextmanager
def metrics_served(settings: Settings, supervisor: Supervisor) -> Iterator[None]:
    """Serve the supervisor's own metrics to the web process, at a socket beside those of its children."""
    delete_sockets(settings)  # of an earlier run that was killed
    exposition = Exposition()
    process_gauges.install(exposition)
    exposition.read(metrics.PROCESS_RESTARTS, supervisor.restarts)
    server = MonitoringServer(settings.model_copy(update={"metrics_address": None}), exposition.render).start()
    try:
        yield
    finally:
        server.stop()
        delete_sockets(settings)  # of children that were killed


def delete_sockets(settings: Settings) -> None:
    """Delete the sockets of processes that serve their metrics to the web process."""
    for file in settings.socket_dir.glob("metrics.*"):
        file.unlink()


def run(settings: Settings, supervisor: Supervisor, models: Sequence[NamedModel] = ()) -> None:
    """Start the servers, migrate the database, start Sangha's processes, and supervise them."""
    start_time = time.monotonic()
    print_line(f"Sangha {version()}, data folder {settings.home}")
    if servers := embedded_servers(settings):
        print_line("Starting " + " and ".join(server.name for server in servers))
        supervisor.start(servers)
    if supervisor.stopping:
        return
    check_external_servers(settings)
    preflight.check_release(settings)
    migrate(settings)
    with closing(DeadWorkerReleaser(settings, print_line)) as releaser:
        releaser.release_last_run(supervisor.run_folder)
        serve(settings, supervisor, releaser, start_time, models)
    print_line("Stopping …")


def serve(
    settings: Settings,
    supervisor: Supervisor,
    releaser: DeadWorkerReleaser,
    start_time: float,
    models: Sequence[NamedModel] = (),
) -> None:
    """Start Sangha's processes, and supervise them until a stop is requested."""
    services = processes(settings, models)
    print_line("Starting " + ", ".join(service.name for service in services))
    supervisor.start(services, releaser.release)
    if not supervisor.stopping:
        print_line(f"Ready after {time.monotonic() - start_time:.1f} s")
        print_line(first_call(settings))
    supervisor.watch()


def embedded_servers(settings: Settings) -> list[Service]:
    """Return the servers that have no address in the settings."""
    servers: list[Service] = []
    if settings.database_url is None:
        servers.append(Postgres(settings.home / "postgres", settings.socket_dir))
    if settings.redis_url is None:
        servers.append(Valkey(settings.home / "valkey", settings.socket_dir))
    return servers


def check_external_servers(settings: Settings) -> None:
    """Check the servers that are not embedded before any process starts. Raises Unavailable."""
    from ops.doctor.finding import run_check
    from ops.doctor.servers import broker, redis_server

    if settings.database_url:
        check_external_database(settings.database_url)
    for check in [redis_server, broker] if settings.redis_url else [broker]:
        finding = run_check(check, settings)
        if finding.verdict == "FAIL":
            remedy = f" — {finding.remedy}" if finding.remedy else ""
            raise Unavailable(f"{finding.name}: {finding.detail}{remedy}")


def check_external_database(dsn: str) -> None:
    """Check that the database accepts connections; pgvector and the schema come with the migrations.

    Raises Unavailable.
    """
    try:
        psycopg.connect(dsn, connect_timeout=5).close()
    except psycopg.OperationalError as error:
        detail = f"cannot connect ({first_line(error)})"
        raise Unavailable(f"Postgres: {detail} — check {variable_name('database_url')}") from error


def processes(settings: Settings, models: Sequence[NamedModel] = ()) -> list[SanghaProcess]:
    """Return Sangha's own processes, in the order in which they are stopped: workers first."""
    return [
        *_inference_workers(settings, models),
        *([WorkerProcess("worker-upstream", settings, ["upstream"])] if pool_models(settings) else []),
        WorkerProcess("worker-light", settings, [pool for pool in POOLS if pool not in ("inference", "upstream")]),
        WebProcess(settings),
        SchedulerProcess(settings),
    ]


def _inference_workers(settings: Settings, models: Sequence[NamedModel]) -> Iterator[WorkerProcess]:
    """Yield a worker for each model. The first one has the name that the only one has."""
    if not models:
        yield WorkerProcess("worker-inference", settings, ["inference"])
    for number, model in enumerate(models):
        name = f"worker-{model_queue(model.name, '' if number else model.name)}".replace(".", "-", 1)
        yield WorkerProcess(name, settings, ["inference"], model_arguments(model))


def migrate(settings: Settings) -> None:
    """Apply the pending migrations."""
    from models.platform import pooler
    from models.platform.migrate import migrate as apply_migrations

    start_time = time.monotonic()
    if applied := apply_migrations(settings.postgres_dsn).applied:
        print_line(f"  {len(applied)} migrations applied  {time.monotonic() - start_time:.1f} s")
    pooler.store_limits(settings)


def first_call(settings: Settings) -> str:
    """Return shell commands that make a first call; they can be pasted any number of times."""
    host = connectable_host(settings.host)
    own = f"{settings.scheme}://{f'[{host}]' if ':' in host else host}:{settings.port}"
    # A certificate is for the public name.
    address = settings.public_address if settings.tls_cert and settings.public_url else own
    python = shlex.quote(sys.executable)
    install = "" if find_spec("openai") else f"{python} -m pip install openai\n"
    return FIRST_CALL.format(address=address, home=settings.home, install=install, python=python)


def print_line(line: str) -> None:
    """Print a line to the console, which may have been closed."""
    try:
        click.echo(line)
    except OSError:
        log.debug("Cannot write to the console: %s", line)
