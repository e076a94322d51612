"""Run a worker process, which serves one or more pools until TERM or INT."""

import importlib
import logging
import os
import signal
import socket
import threading
import types
import uuid
from collections.abc import Sequence
from functools import partial
from uuid import UUID

import dramatiq

from models.jobs import attempts, outbox
from models.jobs.catalogue import POOLS, queue_of_message
from models.journal.writer import JournalWriter
from models.platform import process_gauges
from models.platform.database import Database
from models.platform.errors import ConfigurationError
from models.platform.exposition import Exposition
from models.platform.garbage_collector import freeze_garbage_collector
from models.platform.log_levels import LogLevelWatch
from models.platform.monitoring import MonitoringServer
from models.platform.redis_client import connect
from models.platform.settings import Settings
from tasks import worker_gauges
from tasks.broker import build_broker
from tasks.heartbeat import Heartbeat
from tasks.job_runner import JobRunner
from tasks.pod_deletion_cost import PodDeletionCost, own_pod
from tasks.rabbitmq import QuorumBroker
from tasks.relay import Relay
from tasks.worker_health import WorkerHealth

log = logging.getLogger(__name__)

#: Milliseconds after which an idle thread checks whether it should stop.
IDLE_TIMEOUT = 1000

#: The most connections to Postgres for the slots of engines: an answer needs one for a few milliseconds.
MAX_SLOT_CONNECTIONS = 64

#: Pools that a process cannot serve together: they run the same kinds of jobs with other engines.
SEPARATE_POOLS = frozenset({"inference", "upstream"})

#: Seconds that running jobs have to notice that the worker is stopping.
STOP_TIMEOUT = 10.0


def run_worker(settings: Settings, pools: Sequence[str]) -> None:
    """Serve pools until TERM or INT. The engine is loaded before the first job is claimed.

    Raises ConfigurationError for an unknown pool, and for a model that cannot be loaded.
    """
    pools = list(dict.fromkeys(pools))
    modules = [_load_module(pool) for pool in pools]
    if set(pools) >= SEPARATE_POOLS:
        raise ConfigurationError("a process serves inference or upstream: start one worker for each")
    health, exposition = WorkerHealth(), Exposition()
    monitoring = MonitoringServer(settings, exposition.render, health).start()
    runner = _open_runner(settings, pools)
    process_gauges.install(exposition, [runner.database])
    worker_gauges.install(exposition, runner)
    threads = {queue: count for module in modules for queue, count in module.declare_actors(runner).items()}
    for queue in threads:
        runner.broker.declare_queue(queue)  # those of models are not in the catalogue
    dramatiq_workers = [create_dramatiq_worker(runner, queue, count) for queue, count in threads.items()]
    heartbeat = Heartbeat(runner, host=socket.gethostname(), pid=os.getpid(), pools=list(pools), threads=threads)
    stop_requested = _stop_on_signals()
    LogLevelWatch(settings).start()
    freeze_garbage_collector()  # the engine is loaded
    heartbeat.start()
    for worker in dramatiq_workers:
        worker.start()
    pod = own_pod(settings)
    cost = PodDeletionCost(pod, lambda: len(runner.claimed_jobs())).start() if pod else None
    health.started(runner, heartbeat, dramatiq_workers)
    log.info("Ready: %s", ", ".join(f"{queue} with {count} threads" for queue, count in threads.items()))
    stop_requested.wait()
    log.info("Stopping")
    if cost:
        cost.stop()
    for thread in (thread for worker in dramatiq_workers for thread in worker.workers):
        thread.stop()  # takes no further message: it could be that of a job which was just released
    runner.release_all()
    _stop(dramatiq_workers)
    runner.writer.stop()
    runner.relay.stop()
    heartbeat.stop()
    runner.broker.close()
    runner.database.close()
    monitoring.stop()


def create_dramatiq_worker(runner: JobRunner, queue: str, threads: int) -> dramatiq.Worker:
    """Return the threads and the consumer of one queue, so that the long jobs of another queue do not occupy them.

    Dramatiq documents one Worker per process. Several are safe here: they share the broker, which passes the messages
    of each queue to the Worker that serves it, and have no middleware or signal handlers.
    """
    runner.broker.logger.addFilter(_is_no_duplicate_warning)
    worker = dramatiq.Worker(runner.broker, queues={queue}, worker_threads=threads, worker_timeout=IDLE_TIMEOUT)
    worker.queue_prefetch = threads  # one message per thread, so that other workers get the rest
    return worker


def _is_no_duplicate_warning(record: logging.LogRecord) -> bool:
    """Drop the broker's warning that each Worker after the first adds a middleware of the same type."""
    return "middleware of the same type twice" not in record.getMessage()


def _stop(workers: Sequence[dramatiq.Worker]) -> None:
    """Stop all workers in parallel."""
    stopping = [
        threading.Thread(target=worker.stop, kwargs={"timeout": int(STOP_TIMEOUT * 1000)}) for worker in workers
    ]
    for thread in stopping:
        thread.start()
    for thread in stopping:
        thread.join()


def _load_module(pool: str) -> types.ModuleType:
    if pool not in POOLS:
        raise ConfigurationError(f"there is no pool {pool!r}; choose from {', '.join(POOLS)}")
    return importlib.import_module(f"tasks.{pool}")


def _open_runner(settings: Settings, pools: Sequence[str]) -> JobRunner:
    name = f"{socket.gethostname()}:{'+'.join(pools)}:{uuid.uuid4().hex[:12]}"
    slots = [settings.slots, *(upstream.slots for upstream in settings.upstreams if "upstream" in pools)]
    size = min(sum(slots), MAX_SLOT_CONNECTIONS) + 2 + 4 * len(pools)
    database = Database.open(settings, size=size, name=f"worker {'+'.join(pools)}")
    client = connect(settings.redis_address)
    broker = build_broker(settings.broker_address)
    if isinstance(broker, QuorumBroker):
        broker.on_queue_recreated = partial(_publish_again, database)

    def may_write(job_id: str, attempt: int, claim_id: UUID | None) -> bool:
        with database.connection() as connection:
            return attempts.may_write(connection, job_id, attempt, claim_id)

    writer = JournalWriter(client, may_write, shards=settings.stream_shards)
    relay = Relay(database, broker).start()
    return JobRunner(name, settings, database, client, broker, writer, relay)


def _publish_again(database: Database, queue_name: str) -> None:
    with database.connection() as connection:
        outbox.unpublish_queues(connection, [queue_of_message(queue_name)])


def _stop_on_signals() -> threading.Event:
    stop_requested = threading.Event()

    def handle(number: int, frame: object) -> None:
        stop_requested.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return stop_requested
