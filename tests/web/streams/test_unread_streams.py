"""Streams whose clients do not read cost the web process a bounded amount of memory."""

import contextlib
import http.client
import socket
import time

import psutil
import pytest

from bench.harness.processes import ConfiguredWeb, changed
from bench.harness.waiting import wait_until
from ops.embedded_servers import running_server
from ops.rabbitmq import free_ports
from tests.web.scripted_job import ScriptedJob

MEGABYTE = 1_000_000

#: Bytes of a turn's instructions, nearly the largest body.
INSTRUCTIONS = "i" * 1_900_000

#: Streams, and the bytes of memory that they may cost in all: what an account may leave unsent, the first events that
#: are kept, what 16 reads at once exceed the limit by, and the allocator's share. Unbounded they took 580 MB.
STREAMS, MOST = 40, 200 * MEGABYTE

#: Seconds in which the memory must not grow by more than a megabyte to count as stable.
STABLE = 1.5


@pytest.fixture
def web(settings, tmp_path):
    """A web process: its address and its `psutil.Process`."""
    for name in ("run", "logs"):
        (tmp_path / name).mkdir()
    (port,) = free_ports(1)
    service = ConfiguredWeb(changed(settings, port=port))
    with running_server(service, tmp_path / "run", tmp_path / "logs") as child:
        yield ("127.0.0.1", port), psutil.Process(child.pid)


@pytest.fixture
def jobs(database, redis_client, user):
    """Ended jobs with large shared fields, one for each stream."""
    jobs = [ScriptedJob(database, redis_client, user.caller.account_id, INSTRUCTIONS) for _ in range(STREAMS)]
    for job in jobs:
        job.end()
    return jobs


def open_stream(address, token, job_id, after=-1):
    """Request a job's events on a socket with a small receive buffer, and read nothing."""
    stream = socket.socket()
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stream.connect(address)
    head = f"GET /v1/jobs/{job_id}/events?starting_after={after} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}"
    stream.sendall(f"{head}\r\n\r\n".encode())
    return stream


def stable_memory(process):
    """Return the resident bytes of a process when they no longer grow."""
    most, since = process.memory_info().rss, time.monotonic()

    def is_stable():
        nonlocal most, since
        if (now := process.memory_info().rss) > most + MEGABYTE:
            most, since = now, time.monotonic()
        return time.monotonic() - since > STABLE

    wait_until(is_stable, 60, interval=0.02)
    return most


def read_events(address, token, job_id):
    """Read a job's whole stream; returns the bodies of its events."""
    connection = http.client.HTTPConnection(*address, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", f"/v1/jobs/{job_id}/events", headers={"authorization": f"Bearer {token}"})
        body = connection.getresponse().read()
    return [line.removeprefix(b"data: ") for line in body.split(b"\n") if line.startswith(b"data: ")]


def test_unread_streams_of_large_responses_take_bounded_memory(web, user, jobs):
    """Given a web process that has served such a stream, when an account opens many and reads none, then its memory
    grows by a bounded amount, and the streams that are read are whole.
    """
    address, process = web
    whole = [event.data for event in jobs[0].clients_events()]
    assert read_events(address, user.token, jobs[0].id) == whole
    before = stable_memory(process)

    with contextlib.ExitStack() as stack:
        for job in jobs:
            stack.enter_context(open_stream(address, user.token, job.id))
        grown = stable_memory(process) - before
    print("grown", grown / MEGABYTE, "MB")

    assert grown < MOST
    assert read_events(address, user.token, jobs[-1].id) == [event.data for event in jobs[-1].clients_events()]
