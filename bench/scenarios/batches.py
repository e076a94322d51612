"""Batches on the scripted engine: lines a second, beside turns that somebody waits for, and over kill -9.

The input files are stored by this process; everything else is done by the platform's.
"""

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import orjson

from bench.figures import Figure, at_least, at_most
from bench.harness.processes import restart
from bench.harness.sse import CheckFailed
from bench.harness.stack import LIGHT_POOLS, WITHOUT_MEMORY, RunningPlatform
from bench.harness.waiting import wait_until
from bench.scenario import Bench
from models.accounts import files
from models.accounts.accounts import Caller, Role
from models.accounts.ownership import Access
from models.accounts.plans import Limits
from models.batches import batches as batch_rows
from models.batches.batches import Batch
from models.platform.database import Database, fetch_one
from models.platform.ids import new_id
from models.platform.object_store import ObjectStore
from pipelines.batches.requested_batches import create_batch
from pipelines.files.content import read_content
from pipelines.files.store import store_file

#: Requests of a batch; of one whose processes are killed, also with --full.
LINES, KILLED_LINES, FULL_LINES = 4000, 2000, 50_000

#: Tokens of an answer.
SCRIPT = "tokens=20,rate=0"

#: Turns that a client waits for, without and beside a batch; seconds between two of them.
TURNS, PAUSE = 40, 0.05

#: Seconds between two kills, and those that a batch of 50,000 lines may take.
KILL_INTERVAL, PATIENCE = 4.0, 3600.0

#: The processes that are killed.
KILLED = ("worker-1", "worker-light", "scheduler", "web")

ENDPOINT = "/v1/responses"


@dataclass(frozen=True, slots=True)
class BatchClient:
    """Creates batches of an account and reads their files, beside the platform's processes."""

    database: Database
    objects: ObjectStore
    caller: Caller

    def create(self, lines: int) -> Batch:
        """Create a batch of so many requests."""
        file_id = new_id("file")
        store_file(
            self.database,
            self.objects,
            account_id=self.caller.account_id,
            user_id=self.caller.user_id,
            file_id=file_id,
            filename="requests.jsonl",
            purpose="batch",
            content_type="application/jsonl",
            content=(_request(number) for number in range(lines)),
            audience="user",
            days=None,
            job_id=None,
        )
        return create_batch(
            self.database,
            self.caller,
            Limits(),
            batch_id=new_id("batch"),
            job_id=new_id("job"),
            endpoint=ENDPOINT,
            input_file_id=file_id,
        )

    def read(self, batch: Batch) -> Batch:
        """Return the batch as it is now."""
        with self.database.connection() as connection:
            now = batch_rows.read(connection, batch.id, Access.account(batch.account_id))
        assert now is not None
        return now

    def content(self, file_id: str) -> Iterator[bytes]:
        """Return the lines of a file."""
        with self.database.connection() as connection:
            file = files.read_any(connection, file_id, self.caller.account_id)
        assert file is not None
        yield from b"".join(read_content(self.objects, file)).splitlines()


def _request(number: int) -> bytes:
    body = {"input": f"Tell me of river number {number}.", **WITHOUT_MEMORY}
    return orjson.dumps({"custom_id": f"{number}", "method": "POST", "url": ENDPOINT, "body": body}) + b"\n"


def batches(bench: Bench) -> Sequence[Figure]:
    """Measure lines a second, first tokens beside them, and lines lost or repeated over kill -9."""
    with bench.stack.platform(engine="scripted", script=SCRIPT, light_pools=LIGHT_POOLS) as platform:
        database = Database.open(platform.settings, size=2, name="bench")
        try:
            client = BatchClient(database, ObjectStore.open(platform.settings), _caller(platform, database))
            return [*_speed(bench, platform, client), *_killed(bench, platform, client)]
        finally:
            database.close()


def _caller(platform: RunningPlatform, database: Database) -> Caller:
    platform.tokens(2)
    with database.connection() as connection:
        row = fetch_one(connection, "SELECT user_id, account_id FROM memberships ORDER BY created_at LIMIT 1")
    assert row is not None
    return Caller(row["user_id"], row["account_id"], Role.OWNER)


def _speed(bench: Bench, platform: RunningPlatform, client: BatchClient) -> Iterator[Figure]:
    idle = _first_tokens(platform)
    lines = FULL_LINES if bench.full else LINES
    bench.progress.step(0, lines, "lines")
    batch = client.create(lines)
    wait_until(lambda: client.read(batch).completed_lines > lines // 20, PATIENCE)
    beside = _first_tokens(platform)
    batch = _wait(bench, client, batch)
    _check(client, batch, lines)
    assert batch.in_progress_at
    assert batch.finalizing_at
    assert batch.ended_at
    seconds = (batch.finalizing_at - batch.in_progress_at).total_seconds()
    yield Figure("lines of a batch, 20 tokens each", "/s", [lines / seconds], at_least(100))
    yield Figure(
        f"{lines} lines: created → validated", "s", [(batch.in_progress_at - batch.created_at).total_seconds()]
    )
    yield Figure(f"{lines} lines: files written", "s", [(batch.ended_at - batch.finalizing_at).total_seconds()])
    yield Figure("another account's first token, no batch", "ms", idle)
    yield Figure("another account's first token beside a batch", "ms", beside)


def _first_tokens(platform: RunningPlatform) -> list[float]:
    """Return milliseconds to the first token of turns of an account without a batch."""
    client, times = platform.client(1), []
    for _ in range(TURNS):
        began = time.monotonic()
        for event in client.stream("hello", **WITHOUT_MEMORY):
            if event.type == "response.output_text.delta":
                times.append((time.monotonic() - began) * 1000)
                break
        client.close()
        client = platform.client(1)
        time.sleep(PAUSE)
    return times


def _wait(bench: Bench, client: BatchClient, batch: Batch) -> Batch:
    def ended() -> bool:
        now = client.read(batch)
        bench.progress.step(now.ended_lines, now.total_lines, "lines")
        return now.ended

    wait_until(ended, PATIENCE, interval=0.2)
    return client.read(batch)


def _check(client: BatchClient, batch: Batch, lines: int) -> Counter[str]:
    """Count the lines of each custom_id in the files. Raises CheckFailed for a batch that has not completed."""
    if batch.status != "completed":
        raise CheckFailed(f"the batch has the status {batch.status}: {batch.errors}")
    written = [orjson.loads(line) for line in client.content(batch.output_file_id or "")]
    if [line["custom_id"] for line in written] != sorted((line["custom_id"] for line in written), key=int):
        raise CheckFailed("the output file does not have the order of the input file")
    if len(written) != lines or batch.completed_lines != lines:
        raise CheckFailed(f"{len(written)} lines were written, {batch.completed_lines} counted, of {lines}")
    return Counter(line["custom_id"] for line in written)


def _killed(bench: Bench, platform: RunningPlatform, client: BatchClient) -> Iterator[Figure]:
    lines = FULL_LINES if bench.full else KILLED_LINES
    batch, kills, began = client.create(lines), 0, time.monotonic()
    draw = random.Random(0)
    while not client.read(batch).ended:
        bench.progress.step(client.read(batch).ended_lines, lines, f"lines, {kills} kills")
        child = platform.children[draw.choice(KILLED)]
        child.kill()
        kills += 1
        restart(child)
        if time.monotonic() - began > PATIENCE:
            raise CheckFailed(f"the batch did not end over {kills} kills")
        time.sleep(draw.uniform(0, KILL_INTERVAL))
    written = _check(client, client.read(batch), lines)
    seconds = time.monotonic() - began
    yield Figure(f"lines over {kills} kill -9", "/s", [lines / seconds])
    yield Figure("lines lost over kill -9", "", [lines - len(written)], at_most(0))
    yield Figure("lines repeated over kill -9", "", [written.total() - len(written)], at_most(0))
