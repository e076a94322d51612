"""Wrap the drivers of a process, and the points where threads hand over work, to record spans.

A round trip to Postgres lasts until its reply. All statements of a pipeline share one span, which begins with the
first of them.
"""

import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import redis
import redis.asyncio

# Before any import of Dramatiq: this sets its reconnect delay.
from tasks import rabbitmq, rabbitmq_publisher  # noqa: F401  isort: skip
import dramatiq.worker
import pika.adapters.blocking_connection as pika_blocking

from bench.trace.names import name_of
from bench.trace.spans import Recorder, SpanKind

#: The waits of psycopg in a pipeline that are for the server's answer; the others only send.
ANSWER_WAITS = {"BasePipeline._sync_gen", "BasePipeline._exit_gen", "BasePipeline._fetch_gen"}

#: The current thread's unanswered statements to Postgres, and when the first was sent.
unanswered = threading.local()


def install(recorder: Recorder) -> None:
    """Install all wrappers."""
    postgres(recorder)
    valkey(recorder)
    broker(recorder)
    threads(recorder)
    own_code(recorder)


def around(recorder: Recorder, owner: Any, name: str, kind: SpanKind, label: Callable[..., str]) -> None:
    """Record a span around each call of a method; `label` gets its arguments."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def measured(*arguments: Any, **options: Any) -> Any:
        with recorder.around(kind, label(*arguments, **options)):
            return original(*arguments, **options)

    setattr(owner, name, measured)


def around_async(recorder: Recorder, owner: Any, name: str, kind: SpanKind, label: Callable[..., str]) -> None:
    """Record a span around each call of a coroutine method."""
    original = getattr(owner, name)

    @functools.wraps(original)
    async def measured(*arguments: Any, **options: Any) -> Any:
        with recorder.around(kind, label(*arguments, **options)):
            return await original(*arguments, **options)

    setattr(owner, name, measured)


def before(owner: Any, name: str, callback: Callable[..., None]) -> None:
    """Run a callback before each call of a method."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        callback(*arguments, **options)
        return original(*arguments, **options)

    setattr(owner, name, wrapped)


def postgres(recorder: Recorder) -> None:
    """Record round trips with their statements."""

    def send(statement: Any) -> None:
        if not getattr(unanswered, "parts", None):
            unanswered.parts, unanswered.begin = [], time.monotonic_ns()
        unanswered.parts.append(name_of(statement))

    before(psycopg.Connection, "execute", lambda connection, statement, *rest, **options: send(statement))
    before(psycopg.Connection, "_exec_command", lambda connection, command, *rest, **options: send(command))
    original = psycopg.Connection.wait

    def wait(connection: Any, generator: Any, *rest: Any, **options: Any) -> Any:
        try:
            return original(connection, generator, *rest, **options)
        finally:
            parts = getattr(unanswered, "parts", None)
            if parts and (connection._pipeline is None or generator.__qualname__ in ANSWER_WAITS):
                recorder.add("postgres", " + ".join(parts), unanswered.begin, parts)
                unanswered.parts = []

    psycopg.Connection.wait = wait  # type: ignore[assignment,method-assign]


def valkey(recorder: Recorder) -> None:
    """Record commands. A read of the shards, which blocks, is an instant: that of its answer."""
    from models.platform import redis_cluster
    from web.streams import shard_reader

    around(recorder, redis.Redis, "execute_command", "valkey", lambda client, *command, **options: name_of(command))
    around_async(
        recorder, redis.asyncio.Redis, "execute_command", "valkey", lambda client, *words, **options: name_of(words)
    )
    commands: Any = redis_cluster
    reader: Any = shard_reader
    exchange, read = commands.exchange, reader._read

    def measured_exchange(client: Any, sent: Sequence[Sequence[Any]]) -> Any:
        parts = [name_of(command) for command in sent]
        with recorder.around("valkey", " + ".join(parts), parts):
            return exchange(client, sent)

    async def measured_read(*arguments: Any) -> Any:
        entries = await read(*arguments)
        recorder.add("valkey", "XREAD", time.monotonic_ns(), ["XREAD"])
        return entries

    commands.exchange = measured_exchange
    reader._read = measured_read


def broker(recorder: Recorder) -> None:
    """Record publishing with its confirm, deliveries and acknowledgements."""
    publisher, channel = rabbitmq_publisher.Publisher, pika_blocking.BlockingChannel
    around(recorder, publisher, "publish", "rabbitmq", lambda *words: "publish, confirm")
    before(channel, "basic_ack", lambda *words, **options: recorder.mark("ack"))
    consumer = dramatiq.worker.ConsumerThread
    before(consumer, "handle_message", lambda thread, message: recorder.mark(f"delivered: {message.actor_name}"))


def threads(recorder: Recorder) -> None:
    """Record waiting for a thread from the event loop, and the work of the thread.

    Call it before the modules are imported that import the function.
    """
    from web.http import threads

    original = threads.run_in_thread

    async def run_in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
        label = work_name(work)

        def run(*run_arguments: Any) -> Any:
            with recorder.around("work", label):
                return work(*run_arguments)

        with recorder.around("wait", label):
            return await original(run, *arguments)

    threads.run_in_thread = run_in_thread  # type: ignore[assignment]


def work_name(work: Any) -> str:
    """Return the name of a function that may be wrapped in partials."""
    while isinstance(work, functools.partial):
        work = work.func
    return str(getattr(work, "__qualname__", work)).replace("<locals>.", "")


def own_code(recorder: Recorder) -> None:
    """Record the steps of our own code around the round trips."""
    from models.journal import writer as journal_writer
    from pipelines.chat import answer_writer
    from pipelines.inference.llamacpp import loopback
    from tasks import job_runner, relay
    from web.http import middleware

    around(recorder, loopback.LoopbackClient, "request", "work", lambda loopback, method, path, body=None: path)
    before(
        answer_writer.AnswerWriter,
        "write_text",
        lambda answer, token: None if answer.output_tokens else recorder.mark("first token"),
    )
    around(recorder, relay.Relay, "_publish", "work", lambda relay, lock_due_jobs: "publish due jobs")
    around(recorder, job_runner.JobRunner, "execute", "work", lambda runner, *words: "execute")
    around(recorder, job_runner, "open_attempt", "work", lambda *words: "open_attempt")
    around(recorder, journal_writer.JournalWriter, "_send", "work", lambda writer, batch: "send")
    before(journal_writer.Journal, "write", lambda journal, type_, payload: recorder.mark(type_))
    before(journal_writer.Journal, "append_endings", lambda journal, endings: recorder.mark(endings[-1].type.decode()))
    serve = middleware.RequestMiddleware
    around_async(recorder, serve, "__call__", "work", lambda layer, scope, receive, send: scope.get("path", ""))
    before(middleware.ResponseSender, "send", lambda exchange, message: recorder.mark(sent_label(message)))


def sent_label(message: Any) -> str:
    """Describe an outgoing message: the status of a response, or the types of its events."""
    if message["type"] == "http.response.start":
        return f"head {message['status']}"
    types = [line[7:].decode() for line in message.get("body", b"").split(b"\n") if line.startswith(b"event: ")]
    return " + ".join(types) or "end"
