"""An import writes each valid line once, also if its worker dies in between, and reports the invalid ones."""

import io
import json

import pytest

from models.jobs.jobs import NewJob, enqueue
from models.jobs.windows import others_wait
from models.memory import memories
from models.memory.memories import Filters
from models.memory.spaces import SpaceKey
from models.platform.errors import Cancelled, PermanentFailure, Released
from models.platform.ids import new_id
from models.platform.object_store import ObjectStore
from pipelines import time_slice
from pipelines.files.deletion import delete_file
from pipelines.files.store import store_file
from pipelines.memory import import_file
from pipelines.memory.store import BATCH, CHECKED_TEXTS

LINES = 3 * BATCH + 7


class WorkerDied(Exception):
    """Simulates the death of the worker process."""


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Let no job of another test wait for the thread of an import."""
    monkeypatch.setattr(time_slice, "others_wait", lambda connection, job: False)


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
        rows = memories.page(connection, SpaceKey(*owner), Filters(), limit=10_000)
    return sorted(memory.text for memory in rows)


def valid_texts():
    return sorted(f"tree {number}" for number in range(LINES) if number % BATCH != 5 or number > 2 * BATCH + 5)


@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("reported", [True, False], ids=["progress", "no progress"])
def test_crash_between_batches_loses_and_repeats_no_line(database, begin, settle, job, owner, batch, reported):
    new, objects = job
    with pytest.raises(WorkerDied):
        import_file.run(embed_until(batch * BATCH // CHECKED_TEXTS), objects, begin(new))
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


@pytest.fixture
def uploaded_job(settings, database, owner, job, monkeypatch):
    """Return a job that imports the same lines from an uploaded file of several objects, and the object store."""
    monkeypatch.setattr("pipelines.files.store.OBJECT_BYTES", 1000)
    new, objects = job
    file = store_file(
        database,
        objects,
        account_id=owner[0],
        user_id=None,
        file_id=new_id("file"),
        filename="memories.jsonl",
        purpose="user_data",
        content_type="application/jsonl",
        content=objects.get(new.arguments["object_key"]),
        audience="account",
        days=None,
        job_id=None,
    )
    assert len(file.objects) > 3
    return NewJob("memory.import", owner[0], {"user_id": owner[1], "uploaded_file_id": file.id}), objects, file


def test_crash_during_the_import_of_an_uploaded_file_loses_and_repeats_no_line(
    database, begin, settle, uploaded_job, owner
):
    new, objects, _ = uploaded_job
    with pytest.raises(WorkerDied):
        import_file.run(embed_until(2 * BATCH // CHECKED_TEXTS), objects, begin(new))

    attempt = begin(new)
    ending = import_file.run(embed, objects, attempt)
    settle(attempt, ending)

    assert stored_texts(database, owner) == valid_texts()
    assert (ending.result["imported"], ending.result["failed"]) == (LINES - 3, 3)


@pytest.mark.parametrize("begun", [False, True])
def test_uploaded_file_that_is_deleted_fails_the_job(database, begin, uploaded_job, owner, begun):
    new, objects, file = uploaded_job

    def delete_then_embed(texts):
        delete_file(database, objects, file)
        return embed(texts)

    if not begun:
        delete_file(database, objects, file)

    with pytest.raises(PermanentFailure) as failure:
        import_file.run(delete_then_embed, objects, begin(new))

    assert failure.value.code == "deleted"
    assert bool(stored_texts(database, owner)) is begun


def test_missing_file_fails_the_job(begin, job):
    new, objects = job
    objects.delete([new.arguments["object_key"]])

    with pytest.raises(PermanentFailure):
        import_file.run(embed, objects, begin(new))


def test_long_blank_and_unterminated_lines_are_read(settings):
    objects, report = ObjectStore.open(settings), import_file.ImportReport()
    content = b"a\n\nb\r\n" + b"x" * (3 * import_file.MAX_LINE_BYTES) + b"\nlast"
    objects.put("lines", io.BytesIO(content))

    lines = list(import_file._read_lines(objects.get("lines"), report))

    assert (lines[0], lines[1], lines[2].strip(), lines[-1]) == (b"a", b"", b"b", b"last")
    assert (report.lines, report.offset) == (5, len(content))
    assert import_file._parse_line(report, lines[3], "key", None) is None
    assert "longer" in report.errors[0]["message"]


@pytest.mark.parametrize("done", range(6))
def test_reading_continues_behind_the_lines_that_were_counted(settings, done):
    objects, counted = ObjectStore.open(settings), import_file.ImportReport()
    long = b"x" * (3 * import_file.MAX_LINE_BYTES)
    objects.put("lines", io.BytesIO(b"a\n\n" + long + b"\nc\nlast"))
    lines = import_file._read_lines(objects.get("lines"), counted)
    first = [next(lines) for _ in range(min(done, 5))]

    rest = list(import_file._read_lines(objects.get("lines", counted.offset), counted))

    assert [line[:4] for line in first + rest] == [b"a", b"", b"xxxx", b"c", b"last"]


def store_lines(objects, job, content):
    objects.put(job.arguments["object_key"], io.BytesIO(content))


def test_an_import_with_too_many_invalid_lines_is_given_up(begin, job):
    new, objects = job
    store_lines(objects, new, b'{"text": "a tree"}\n' + b"{}\n" * 1_000_000)

    ending = import_file.run(embed, objects, begin(new))

    assert (ending.state, ending.error["code"]) == ("failed", "too_many_invalid_lines")
    assert ending.result["failed"] == import_file.MAX_INVALID_LINES + 1
    assert ending.result["lines"] == import_file.MAX_INVALID_LINES + 2
    assert ending.result["imported"] == 1
    assert len(ending.result["errors"]) == import_file.MAX_REPORTED_ERRORS


class CancellingStore:
    """An object store that cancels the attempt while it reads the third of many chunks."""

    def __init__(self, attempt, line):
        self.attempt, self.line, self.read = attempt, line, 0

    def get(self, key, offset=0):
        for number in range(100):
            self.read += 1
            if number == 2:
                self.attempt.stop("cancelled")
            yield self.line * 100


@pytest.mark.parametrize("line", [b"\n", b"{}\n"], ids=["blank", "invalid"])
def test_a_cancel_is_heard_between_lines_none_of_which_is_imported(begin, job, line):
    attempt = begin(job[0])
    store = CancellingStore(attempt, line)

    with pytest.raises(Cancelled):
        import_file.run(embed, store, attempt)

    assert store.read == 3


def test_a_cancel_is_heard_between_the_texts_of_a_batch(begin, job, database, owner):
    new, objects = job
    attempt, embedded = begin(new), []

    def embed_and_cancel(texts):
        embedded.extend(texts)
        attempt.stop("cancelled")
        return embed(texts)

    with pytest.raises(Cancelled):
        import_file.run(embed_and_cancel, objects, attempt)

    assert len(embedded) == CHECKED_TEXTS
    assert stored_texts(database, owner) == []


def test_progress_counts_the_lines_read_and_the_next_attempt_does_not_read_them_again(
    begin, job, database, owner, monkeypatch
):
    # Given an import that stores its progress after each line, and whose worker dies at the second batch
    new, objects = job
    monkeypatch.setattr(import_file, "FLUSH_INTERVAL", -1)
    store_lines(objects, new, b"\n\n{}\n" + b'{"text": "oak"}\n' + b"\n" + b'{"text": "elm"}\n')
    with pytest.raises(WorkerDied):
        import_file.run(embed_until(1), objects, begin(new))

    # When another attempt continues
    attempt = begin(new)
    parsed = []
    monkeypatch.setattr(import_file, "_parse_line", record_calls(import_file._parse_line, parsed))
    ending = import_file.run(embed, objects, attempt)

    # Then it reads only what was not reported
    assert attempt.job.progress["done"] == 5
    assert len(parsed) == 1
    assert ending.result == {
        "lines": 6, "imported": 2, "failed": 1, "errors": [{"line": 3, "message": "text: Field required"}],
    }  # fmt: skip
    assert stored_texts(database, owner) == ["elm", "oak"]


def record_calls(function, calls):
    def recorded(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return recorded


def test_an_import_yields_its_thread_where_another_account_waits(begin, job, database, owner, monkeypatch):
    # Given a job of another account that waits in the same queue
    new, objects = job
    monkeypatch.setattr(import_file, "FLUSH_INTERVAL", -1)
    monkeypatch.setattr(time_slice.TimeSlice.__init__, "__defaults__", (time_slice.SECONDS, 0))
    monkeypatch.setattr(time_slice, "others_wait", others_wait)
    insert_waiting_job(database)

    # When the import runs
    with pytest.raises(Released):
        import_file.run(embed, objects, begin(new))

    # Then it yields after a step, and continues once neither that job nor those of other tests wait
    assert len(stored_texts(database, owner)) == 1
    with database.connection() as connection:
        connection.execute(
            "UPDATE jobs SET state = 'completed', finished_at = now() WHERE state = 'queued' AND account_id <> %s",
            (owner[0],),
        )
    assert import_file.run(embed, objects, begin(new)).result["imported"] == LINES - 3
    assert stored_texts(database, owner) == valid_texts()


def insert_waiting_job(database):
    """Insert a published job of another account into the queue of imports."""
    other = new_id("acct")
    waiting = NewJob("memory.import", other)
    with database.transaction() as connection:
        connection.execute("INSERT INTO accounts (id, name) VALUES (%s, 'another')", (other,))
        enqueue(connection, waiting)
        connection.execute("UPDATE jobs SET published_at = now() - interval '1 second' WHERE id = %s", (waiting.id,))
