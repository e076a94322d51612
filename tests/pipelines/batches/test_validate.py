"""The input file of a batch is validated as a whole, and errors name their lines."""

import json

import pytest

from models.accounts import files
from models.batches import lines
from models.platform.errors import Released
from pipelines.batches import input_lines, validate
from pipelines.batches.input_lines import split_lines
from tests.pipelines.batches.conftest import request_line


def errors_of(user_batches, content, **options):
    batch = user_batches.finish(user_batches.create(content, **options))
    assert batch.status == "failed", batch
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    return [(error["code"], error["line"], error["param"]) for error in batch.errors]


def changed(**changes):
    line = json.loads(request_line(1))
    return json.dumps({name: value for name, value in (line | changes).items() if value is not ...}).encode()


@pytest.mark.parametrize(
    ("line", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b'"a text"', "invalid_json_line", None),
        (b'{"custom_id": "\xff"}', "invalid_json_line", None),
        (changed(custom_id=...), "missing_required_parameter", "custom_id"),
        (changed(body=...), "missing_required_parameter", "body"),
        (changed(url=...), "missing_required_parameter", "url"),
        (changed(method=...), "missing_required_parameter", "method"),
        (changed(custom_id=""), "invalid_custom_id", "custom_id"),
        (changed(custom_id=7), "invalid_custom_id", "custom_id"),
        (changed(custom_id="\0"), "invalid_json_line", None),
        (changed(custom_id="x" * 513), "invalid_custom_id", "custom_id"),
        (changed(method="GET"), "invalid_method", "method"),
        (changed(url="/v1/chat/completions"), "invalid_url", "url"),
        (changed(url=["/v1/responses"]), "invalid_url", "url"),
        (changed(body=[]), "invalid_body", "body"),
        (changed(priority=1), "unknown_parameter", "priority"),
        (changed(body={"input": "x", "stream": True}), "unsupported_parameter", "body.stream"),
        (changed(body={"input": "x", "model": "none-such"}), "model_not_found", "body.model"),
    ],
)
def test_error_of_a_line_names_its_number_and_field(user_batches, line, code, param):
    content = b"\n".join([request_line(7), b"", line, request_line(8)])

    assert errors_of(user_batches, content) == [(code, 3, param)]


def test_none_of_the_requests_of_a_batch_with_errors_runs(user_batches):
    batch = user_batches.look(user_batches.create(request_line(1) + b"\n{"))

    assert (batch.status, batch.completed_lines) == ("failed", 0)
    with user_batches.database.connection() as connection:
        kinds = connection.execute("SELECT kind FROM jobs WHERE account_id = %s", (batch.account_id,)).fetchall()
        assert [row["kind"] for row in kinds] == ["batch.run"]
        assert lines.waiting(connection, batch, 10) == []


def test_duplicate_custom_ids_are_found_across_sets(user_batches, monkeypatch):
    monkeypatch.setattr(validate, "SET_LINES", 2)
    content = b"\n".join(request_line(number) for number in (1, 2, 3, 1, 4, 2, 1))

    expected = [("duplicate_custom_id", line, "custom_id") for line in (4, 6, 7)]
    assert errors_of(user_batches, content) == expected


@pytest.mark.parametrize("content", [b"", b"\n\n \r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_file_without_requests_is_rejected(user_batches, content):
    assert errors_of(user_batches, content) == [("empty_file", None, None)]


def test_too_many_requests_are_rejected(user_batches, monkeypatch):
    monkeypatch.setattr(validate, "MAX_LINES", 3)
    assert user_batches.finish(user_batches.create(3)).status == "completed"

    assert errors_of(user_batches, 5) == [("too_many_tasks", 4, None)]


def test_lines_are_counted_with_blank_ones_so_that_a_file_of_newlines_is_not_read_to_its_end(user_batches, monkeypatch):
    monkeypatch.setattr(validate, "MAX_FILE_LINES", 10)
    assert user_batches.finish(user_batches.create(request_line(1) + b"\n" * 10)).status == "completed"

    assert errors_of(user_batches, b"\n" * 50 + request_line(1)) == [("too_many_lines", 11, None)]


def test_too_long_line_is_rejected_and_not_kept_in_memory(user_batches, monkeypatch):
    monkeypatch.setattr(input_lines, "MAX_LINE_BYTES", 200)
    content = request_line(1) + b"\n" + b"x" * 100_000 + b"\n" + request_line(2)

    assert errors_of(user_batches, content) == [("line_too_long", 2, None)]


def test_at_most_a_hundred_errors_are_shown(user_batches):
    found = errors_of(user_batches, b"{\n" * 500)

    assert found == [("invalid_json_line", line, None) for line in range(1, 101)]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + request_line(1) + b"\n" + request_line(2),
        request_line(1) + b"\r\n" + request_line(2) + b"\r\n",
        b"\n\n" + request_line(1) + b"\n  \n\n" + request_line(2) + b"\n\n",
    ],
)
def test_byte_order_mark_blank_lines_and_carriage_returns_are_ignored(user_batches, content):
    batch = user_batches.finish(user_batches.create(content))

    assert (batch.status, batch.total_lines, batch.completed_lines) == ("completed", 2, 2)


def test_interrupted_validation_continues_after_the_last_set(user_batches, monkeypatch):
    # Given a validation whose every attempt stores one set of two lines
    monkeypatch.setattr(validate, "SET_LINES", 2)
    stored = []

    class OneSet:
        def __init__(self, attempt):
            pass

        def check(self):
            stored.append(1)
            raise Released("")

    monkeypatch.setattr(validate, "TimeSlice", OneSet)
    batch = user_batches.create(b"\xef\xbb\xbf" + b"\n\n".join(request_line(number) for number in range(5)))

    # When it is repeated
    batch = user_batches.finish(batch)

    # Then each line was inserted once
    assert len(stored) == 2
    assert (batch.status, batch.total_lines, batch.completed_lines) == ("completed", 5, 5)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_lines_do_not_depend_on_the_chunks(size):
    content = b"one\n\ntwo\r\nthree"
    chunks = [content[start : start + size] for start in range(0, len(content), size)]

    found = [(line.number, line.end, line.content) for line in split_lines(chunks)]

    assert found == [(1, 4, b"one"), (2, 5, b""), (3, 10, b"two\r"), (4, 15, b"three")]
    rest = [(line.number, line.end, line.content) for line in split_lines([content[5:]], offset=5, number=2)]
    assert rest == found[2:]


def test_input_file_that_is_deleted_during_the_validation_fails_the_batch(user_batches):
    batch = user_batches.create(2)
    with user_batches.database.connection() as connection:
        files.delete(connection, batch.input_file_id, batch.account_id)

    batch = user_batches.finish(batch)

    assert batch.status == "failed"
    assert batch.errors[0]["code"] == "input_file_deleted"


def test_input_file_may_be_deleted_once_the_lines_run(user_batches):
    batch = user_batches.look(user_batches.create(2))
    with user_batches.database.connection() as connection:
        files.delete(connection, batch.input_file_id, batch.account_id)

    assert user_batches.finish(batch).completed_lines == 2
