"""An import writes each valid line once, also if its worker dies in between, and reports the invalid ones."""

import io
import json

import pytest

from models.jobs.jobs import NewJob
from models.memory import memories
from models.memory.memories import Filters
from models.platform.errors import Cancelled, PermanentFailure
from models.platform.ids import new_id
from models.platform.object_store import ObjectStore
from pipelines.memory import import_file
from pipelines.memory.store import BATCH

LINES = 3 * BATCH + 7


class WorkerDied(Exception):
    """Simulates the death of the worker process."""


@pytest.fixture
def owner(database, account):
    """Return the ids of an account and a user."""
    user_id = new_id("user")
    with database.connection() as connection:
        connection.execute("INSERT INTO users (id, email) VALUES (%s, %s)", (user_id, f"{user_id}@example.com"))
    return account, user_id


@pytest.fixture
def job(settings, owner):
    """Return an import job of LINES lines, one invalid line in each of three batches, and the object store."""
    objects, key = ObjectStore.open(settings), f"{owner[0]}/imports/{new_id('x')}.jsonl"
    lines = [json.dumps({"text": f"tree {number}", "speaker": "Ada"}) for number in range(LINES)]
    lines[5] = lines[BATCH + 5] = lines[2 * BATCH + 5] = '{"text": 5}'
    objects.put(key, io.BytesIO("\n".join(lines).encode()))
    arguments = {"user_id": owner[1], "object_key": key, "file_id": "file_none", "lines": LINES}
    return NewJob("memory.import", owner[0], arguments), objects


def embed(texts):
    return [[1.0] * 384 for _ in texts]


def embed_until(calls):
    """Return an embedder that fails at one of its calls."""
    count = iter(range(1000))

    def embed_or_die(texts):
        if next(count) == calls:
            raise WorkerDied
        return embed(texts)

    return embed_or_die


def stored_texts(database, owner):
    with database.connection() as connection:
        rows = memories.page(connection, *owner, Filters(), limit=10_000)
    return sorted(memory.text for memory in rows)


def valid_texts():
    return sorted(f"tree {number}" for number in range(LINES) if number % BATCH != 5 or number > 2 * BATCH + 5)


@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("reported", [True, False], ids=["progress", "no progress"])
def test_crash_between_batches_loses_and_repeats_no_line(database, begin, settle, job, owner, batch, reported):
    new, objects = job
    with pytest.raises(WorkerDied):
        import_file.run(embed_until(batch), objects, begin(new))
    if not reported:
        with database.connection() as connection:
            connection.execute("UPDATE jobs SET progress = NULL WHERE id = %s", (new.id,))

    attempt = begin(new)
    ending = import_file.run(embed, objects, attempt)
    settle(attempt, ending)

    assert stored_texts(database, owner) == valid_texts()
    assert {**ending.result, "errors": None} == {
        "lines": LINES, "imported": LINES - 3, "failed": 3, "errors": None,
    }  # fmt: skip
    assert [error["line"] for error in ending.result["errors"]] == [6, BATCH + 6, 2 * BATCH + 6]


def test_cancellation_is_checked_between_batches(database, begin, job, owner):
    new, objects = job
    attempt = begin(new)

    def embed_and_cancel(texts):
        attempt.stop("cancelled")
        return embed(texts)

    with pytest.raises(Cancelled):
        import_file.run(embed_and_cancel, objects, attempt)
    assert len(stored_texts(database, owner)) == BATCH


def test_missing_file_fails_the_job(begin, job):
    new, objects = job
    objects.delete([new.arguments["object_key"]])

    with pytest.raises(PermanentFailure):
        import_file.run(embed, objects, begin(new))


def test_long_blank_and_unterminated_lines_are_read(settings):
    objects = ObjectStore.open(settings)
    objects.put("lines", io.BytesIO(b"a\n\nb\r\n" + b"x" * (3 * import_file.MAX_LINE_BYTES) + b"\nlast"))

    lines = list(import_file._read_lines(objects, "lines"))

    assert (lines[0], lines[1], lines[2].strip(), lines[-1]) == (b"a", b"", b"b", b"last")
    assert len(lines) == 5
    report = import_file.ImportReport()
    assert import_file._parse_line(report, 4, lines[3], "key", None) is None
    assert "longer" in report.errors[0]["message"]
