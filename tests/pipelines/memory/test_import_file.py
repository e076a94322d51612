"""Given an import whose worker dies anywhere, when another goes on, then each line is there once, none is missing."""

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


class Died(Exception):
    """As the process does."""


@pytest.fixture
def owner(database, account):
    """The ids of an account and of a user."""
    user_id = new_id("user")
    with database.connection() as connection:
        connection.execute("INSERT INTO users (id, email) VALUES (%s, %s)", (user_id, f"{user_id}@example.com"))
    return account, user_id


@pytest.fixture
def job(settings, owner):
    """An import of LINES lines, one of them wrong in each batch, and the store that has them."""
    objects, key = ObjectStore.open(settings), f"{owner[0]}/imports/{new_id('x')}.jsonl"
    lines = [json.dumps({"text": f"tree {number}", "speaker": "Ada"}) for number in range(LINES)]
    lines[5] = lines[BATCH + 5] = lines[2 * BATCH + 5] = '{"text": 5}'
    objects.put(key, io.BytesIO("\n".join(lines).encode()))
    arguments = {"user_id": owner[1], "object_key": key, "file_id": "file_none", "lines": LINES}
    return NewJob("memory.import", owner[0], arguments), objects


def embed(texts):
    return [[1.0] * 384 for _ in texts]


def dying(calls):
    """An embedder whose process dies at one of its calls."""
    count = iter(range(1000))

    def embed_or_die(texts):
        if next(count) == calls:
            raise Died
        return embed(texts)

    return embed_or_die


def stored(database, owner):
    with database.connection() as connection:
        found = memories.page(connection, *owner, Filters(), limit=10_000)
    return sorted(memory.text for memory in found)


def expected():
    return sorted(f"tree {number}" for number in range(LINES) if number % BATCH != 5 or number > 2 * BATCH + 5)


@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("told", [True, False], ids=["", "before it told of its last batch"])
def test_a_death_between_batches_costs_no_line_and_doubles_none(database, begin, settle, job, owner, batch, told):
    new, objects = job
    with pytest.raises(Died):
        import_file.run(dying(batch), objects, begin(new))
    if not told:
        with database.connection() as connection:
            connection.execute("UPDATE jobs SET progress = NULL WHERE id = %s", (new.id,))

    attempt = begin(new)
    ending = import_file.run(embed, objects, attempt)
    settle(attempt, ending)

    assert stored(database, owner) == expected()
    assert {**ending.result, "errors": None} == {
        "lines": LINES, "imported": LINES - 3, "failed": 3, "errors": None,
    }  # fmt: skip
    assert [error["line"] for error in ending.result["errors"]] == [6, BATCH + 6, 2 * BATCH + 6]


def test_a_cancel_is_heard_between_batches(database, begin, job, owner):
    new, objects = job
    attempt = begin(new)

    def embed_and_be_cancelled(texts):
        attempt.stop("cancelled")
        return embed(texts)

    with pytest.raises(Cancelled):
        import_file.run(embed_and_be_cancelled, objects, attempt)
    assert len(stored(database, owner)) == BATCH


def test_a_file_that_is_gone_ends_it(begin, job):
    new, objects = job
    objects.delete([new.arguments["object_key"]])

    with pytest.raises(PermanentFailure):
        import_file.run(embed, objects, begin(new))


def test_lines_of_all_sorts_and_sizes(settings):
    objects = ObjectStore.open(settings)
    objects.put("lines", io.BytesIO(b"a\n\nb\r\n" + b"x" * (3 * import_file.MAX_LINE_BYTES) + b"\nlast"))

    lines = list(import_file._read_lines(objects, "lines"))

    assert (lines[0], lines[1], lines[2].strip(), lines[-1]) == (b"a", b"", b"b", b"last")
    assert len(lines) == 5
    tally = import_file.ImportReport()
    assert import_file._parse_line(tally, 4, lines[3], "key", None) is None
    assert "longer" in tally.errors[0]["message"]
