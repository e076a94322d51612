"""A worker process: serves one or more pools until it is told to leave."""

import importlib
import logging
import os
import signal
import socket
import threading
import types
import uuid
from collections.abc import Sequence

import dramatiq

from models.jobs import attempts
from models.jobs.catalogue import POOLS
from models.journal.writer import JournalWriter
from models.platform.database import Database
from models.platform.errors import ConfigurationError
from models.platform.redis_client import connect
from models.platform.settings import Settings
from tasks.broker import build_broker
from tasks.heartbeat import Heartbeat
from tasks.job_runner import JobRunner
from tasks.relay import Relay

log = logging.getLogger(__name__)

#: Milliseconds that an idle thread sleeps at most before it looks whether it is to stop.
IDLE_TIMEOUT = 1000

#: Seconds that running jobs get to notice that the worker leaves.
GRACE = 10.0


def work(settings: Settings, pools: Sequence[str]) -> None:
    """Serve pools until TERM or INT. The engine is ready before the first job is claimed.

    Raises ConfigurationError for a pool that doesn't exist or has no work, and for what its engine can't load.
    """
    pools = list(dict.fromkeys(pools))
    modules = [_module(pool) for pool in pools]
    runner = _open_runner(settings, pools)
    # Each pool's module declares its actors and answers how many of them may run at once.
    threads = {pool: module.declare_actors(runner) for pool, module in zip(pools, modules, strict=True)}
    crews = [_crew(runner, POOLS[pool], count) for pool, count in threads.items()]
    queues = [queue for pool in pools for queue in POOLS[pool]]
    total = sum(threads.values())
    heartbeat = Heartbeat(
        runner, host=socket.gethostname(), pid=os.getpid(), pools=list(pools), queues=queues, threads=total
    )
    leave = _on_signals()
    heartbeat.start()
    for crew in crews:
        crew.start()
    log.info("ready: %s", ", ".join(f"{pool} with {count} threads" for pool, count in threads.items()))
    leave.wait()
    log.info("leaving")
    for thread in (thread for crew in crews for thread in crew.workers):
        thread.stop()  # takes no further message, or it would be given what it has just released
    runner.release_all()
    _stop(crews)
    runner.writer.stop()
    runner.relay.stop()
    heartbeat.stop()
    runner.broker.close()
    runner.database.close()


def _crew(runner: JobRunner, queues: Sequence[str], threads: int) -> dramatiq.Worker:
    """A pool's own threads and consumers: another pool's long jobs leave them free.

    Dramatiq speaks of one Worker a process. What its Workers share is the broker, which hands each queue's messages to
    the one whose queues it is among, and no signal or middleware of theirs.
    """
    crew = dramatiq.Worker(runner.broker, queues=set(queues), worker_threads=threads, worker_timeout=IDLE_TIMEOUT)
    crew.queue_prefetch = threads  # one message in flight a thread: the others are free for other workers
    return crew


def _stop(crews: Sequence[dramatiq.Worker]) -> None:
    """Stop all at once: they have their grace together."""
    stopping = [threading.Thread(target=crew.stop, kwargs={"timeout": int(GRACE * 1000)}) for crew in crews]
    for thread in stopping:
        thread.start()
    for thread in stopping:
        thread.join()


def _module(pool: str) -> types.ModuleType:
    if pool not in POOLS:
        raise ConfigurationError(f"There is no pool {pool!r}; the pools are {', '.join(POOLS)}.")
    return importlib.import_module(f"tasks.{pool}")


def _open_runner(settings: Settings, pools: Sequence[str]) -> JobRunner:
    name = f"{socket.gethostname()}:{'+'.join(pools)}:{uuid.uuid4().hex[:12]}"
    size = settings.slots + 2 + 4 * len(pools)
    database = Database(settings.postgres_dsn, size=size, name=f"worker {'+'.join(pools)}")
    client = connect(settings.redis_address)
    broker = build_broker(settings.broker_address)

    def may_write(job_id: str, attempt: int) -> bool:
        with database.connection() as connection:
            return attempts.may_write(connection, job_id, attempt)

    writer = JournalWriter(client, may_write)
    relay = Relay(database, broker).start()
    return JobRunner(name, settings, database, client, broker, writer, relay)


def _on_signals() -> threading.Event:
    leave = threading.Event()

    def handle(number: int, frame: object) -> None:
        leave.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return leave
