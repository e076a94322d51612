"""`sangha up`: everything on one machine, in the foreground, until Ctrl-C."""

import logging
import shlex
import signal
import socket
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import click
import psycopg
from dramatiq.errors import BrokerError
from redis import RedisError

from models.jobs.catalogue import POOLS
from models.jobs.workers import bury
from models.platform.database import Database
from models.platform.errors import SanghaError, Unavailable
from models.platform.settings import Settings, variable
from ops import preflight
from ops.process import Service
from ops.servers import Postgres, Valkey, make_private
from ops.services import SanghaProcess, SchedulerProcess, WebProcess, WorkerProcess, connectable_host
from ops.supervisor import Supervisor
from ops.version import version
from tasks.broker import build_broker
from tasks.relay import Relay

log = logging.getLogger(__name__)

#: Seconds for which the leases of a dead worker are tried to be given back; after that they run out by themselves.
BURIAL = 60.0

FIRST_CALL = """
Sangha answers at {address}   (Ctrl-C stops it; the data stays in {home})

A first call, to paste into a second terminal:

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


def up(settings: Settings) -> None:
    """Start everything, say how to use it, and keep it alive until INT or TERM.

    Raises ConfigurationError or Unavailable with one line when something can't be started.
    """
    with preflight.data_folder_lock(settings.home):
        preflight.check_free_disk(settings.home)
        settings = settings.model_copy(update={"port": preflight.choose_port(settings)})
        supervisor = Supervisor(make(settings.home / "run"), make(settings.home / "logs"), say)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, supervisor.request_stop)
        try:
            run(settings, supervisor)
        finally:
            supervisor.stop()
            say("Everything is stopped.")


def run(settings: Settings, supervisor: Supervisor) -> None:
    """Bring up one stage after the other, then watch."""
    began = time.monotonic()
    say(f"Sangha {version()} keeps its data in {settings.home}")
    if servers := embedded(settings):
        say("Starting " + " and ".join(server.name for server in servers))
        supervisor.start(servers)
    if supervisor.stopping:
        return
    check_servers_of_others(settings)
    migrate(settings)
    undertaker = Undertaker(settings)
    undertaker.clear_last_run(supervisor.run_folder)
    parts = processes(settings)
    say("Starting " + ", ".join(part.name for part in parts))
    supervisor.start(parts, undertaker.bury)
    if not supervisor.stopping:
        say(f"Ready after {time.monotonic() - began:.1f} s")
        say(first_call(settings))
    supervisor.watch()
    say("Stopping …")


def embedded(settings: Settings) -> list[Service]:
    """The servers that the settings name no address for."""
    parts: list[Service] = []
    if settings.database_url is None:
        parts.append(Postgres(settings.home / "postgres", settings.socket_dir))
    if settings.redis_url is None:
        parts.append(Valkey(settings.home / "valkey", settings.socket_dir))
    return parts


def check_servers_of_others(settings: Settings) -> None:
    """What is not embedded must answer before anything of ours starts. Raises Unavailable."""
    from ops import doctor

    if settings.database_url:
        check_database_of_others(settings.database_url)
    checks = [doctor.redis_server] if settings.redis_url else []
    for check in [*checks, doctor.broker]:
        finding = doctor.run(check, settings)
        if finding.verdict == "FAIL":
            remedy = f" — {finding.remedy}" if finding.remedy else ""
            raise Unavailable(f"{finding.name}: {finding.what}{remedy}")


def check_database_of_others(dsn: str) -> None:
    """Only that it answers: what the doctor also asks for, the migrations will bring. Raises Unavailable."""
    from ops import doctor

    try:
        psycopg.connect(dsn, connect_timeout=5).close()
    except psycopg.OperationalError as error:
        line = doctor.one_line(error)
        raise Unavailable(f"Postgres: does not answer ({line}) — check {variable('database_url')}") from error


def processes(settings: Settings) -> list[SanghaProcess]:
    """Workers first: that is the order in which they are stopped."""
    light = [pool for pool in POOLS if pool != "inference"]
    workers = [WorkerProcess("worker-inference", settings, ["inference"])]
    if light:
        workers.append(WorkerProcess("worker-light", settings, light))
    return [*workers, WebProcess(settings), SchedulerProcess(settings)]


def migrate(settings: Settings) -> None:
    """Bring the database to the present schema."""
    from models.platform.migrate import migrate as apply

    began = time.monotonic()
    if applied := apply(settings.postgres_dsn):
        say(f"  {len(applied)} migrations applied  {time.monotonic() - began:.1f} s")


class Undertaker:
    """Gives back at once what dead workers held."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def bury(self, pid: int) -> None:
        """Try until the database answers: it may be what died first."""
        database = Database(self.settings.postgres_dsn, size=1, name="undertaker")
        deadline = time.monotonic() + BURIAL
        try:
            while not self._buried(database, pid) and time.monotonic() < deadline:
                time.sleep(0.2)
        finally:
            database.close()

    def clear_last_run(self, run_folder: Path) -> None:
        """Whoever stands in a pid file now died with the last `up`."""
        for pid_file in run_folder.glob("worker*.pid"):
            text = pid_file.read_text().strip()
            if text.isdigit():
                self.bury(int(text))
            pid_file.unlink(missing_ok=True)

    def _buried(self, database: Database, pid: int) -> bool:
        try:
            given_back = bury(database, socket.gethostname(), pid)
        except SanghaError:
            return False
        if given_back:
            say(f"  {given_back} jobs of the dead worker {pid} were given back")
        self._publish(database)
        return True

    def _publish(self, database: Database) -> None:
        """Nudge other workers now; what fails here the sweeper does within a second."""
        broker = build_broker(self.settings.broker_address)
        with suppress(SanghaError, BrokerError, RedisError, OSError):
            Relay(database, broker).publish_due()
        broker.close()


def first_call(settings: Settings) -> str:
    """Text to paste, that works as often as it is pasted."""
    host = connectable_host(settings.host)
    address = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
    python = shlex.quote(sys.executable)
    install = "" if find_spec("openai") else f"{python} -m pip install openai\n"
    return FIRST_CALL.format(address=address, home=settings.home, install=install, python=python)


def make(folder: Path) -> Path:
    """A folder of ours below the data folder."""
    make_private(folder)
    return folder


def say(line: str) -> None:
    """A line for the person in front of it; if the terminal is gone there is nobody to tell."""
    try:
        click.echo(line)
    except OSError:
        log.debug("nobody reads: %s", line)
