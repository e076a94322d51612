"""A batch answers each of its lines once, and its files have them in order."""

import pytest

from models.accounts.residency import set_residency
from models.delivery import events
from models.platform.database import fetch_all
from models.platform.settings import Settings
from models.platform.upstreams import Upstream
from pipelines.batches import begin_lines
from pipelines.batches.worker import BatchWorker
from tests.pipelines.batches.conftest import request_line


def recorded_events(user_batches):
    with user_batches.database.connection() as connection:
        found = events.page(connection, user_batches.caller.account_id, patterns=["batch.*"])
    return [(event.event_type, event.data["id"]) for event in found]


def count(user_batches, statement, *parameters):
    with user_batches.database.connection() as connection:
        return connection.execute(statement, parameters).fetchone()["count"]


def test_the_output_file_has_the_answer_to_each_line_in_order(user_batches):
    batch = user_batches.finish(user_batches.create(5))

    assert (batch.status, batch.total_lines, batch.completed_lines, batch.failed_lines) == ("completed", 5, 5, 0)
    assert batch.error_file_id is None
    output = user_batches.content(batch.output_file_id)
    assert [line["custom_id"] for line in output] == [f"request-{number}" for number in range(1, 6)]
    assert len({line["id"] for line in output}) == 5
    for line in output:
        assert line["error"] is None
        assert line["response"]["status_code"] == 200
        assert line["response"]["body"]["output"][0]["content"][0]["text"] == "Done."
    assert batch.output_tokens == 10
    assert recorded_events(user_batches) == [("batch.completed", batch.id)]


def test_an_ended_batch_leaves_only_its_own_job_and_the_usage(user_batches):
    batch = user_batches.finish(user_batches.create(3))

    account = user_batches.caller.account_id
    assert count(user_batches, "SELECT count(*) FROM batch_lines WHERE batch_id = %s", batch.id) == 0
    assert count(user_batches, "SELECT count(*) FROM responses WHERE account_id = %s", account) == 0
    assert count(user_batches, "SELECT count(*) FROM jobs WHERE account_id = %s", account) == 1
    assert count(user_batches, "SELECT count(*) FROM usage_records WHERE account_id = %s", account) == 3


def test_lines_are_background_work_of_their_account(user_batches):
    batch = user_batches.look(user_batches.create(2))

    jobs = user_batches.line_jobs(batch)
    assert {job["queue"] for job in jobs} == {"inference_batch"}
    assert batch.status == "in_progress"
    assert batch.running_lines == 2


def test_crashes_of_workers_count_only_until_lines_begin_or_end_again(user_batches):
    def crash():
        with user_batches.database.connection() as connection:
            connection.execute("UPDATE jobs SET failures = 39, crashes = 39 WHERE id = %s", (batch.job_id,))

    failures = "SELECT failures AS count FROM jobs WHERE id = %s"
    # Given a batch whose workers have crashed as often as they may, but for one
    batch = user_batches.create(2)
    crash()
    # When its lines begin
    user_batches.look(batch)
    # Then the crashes no longer count
    assert count(user_batches, failures, batch.job_id) == 0
    # But those of a batch at which nothing happens do
    crash()
    user_batches.look(batch)
    assert count(user_batches, failures, batch.job_id) == 39


def test_a_bounded_number_of_lines_runs_at_a_time(user_batches, monkeypatch):
    monkeypatch.setattr(begin_lines, "RUNNING", 4)
    monkeypatch.setattr(begin_lines, "LEAST_RUNNING", 2)
    monkeypatch.setattr(begin_lines, "SET", 3)
    batch = user_batches.look(user_batches.create(9))
    assert [job["position"] for job in user_batches.line_jobs(batch)] == [1, 2, 3, 4]

    # When the second one ends
    user_batches.answer(user_batches.line_jobs(batch)[1])
    batch = user_batches.look(batch)

    # Then the next one begins
    assert [job["position"] for job in user_batches.line_jobs(batch)] == [1, 3, 4, 5]
    assert (batch.begun_lines, batch.completed_lines) == (5, 1)
    assert user_batches.finish(batch).completed_lines == 9


def test_a_line_whose_body_is_wrong_is_in_the_error_file_and_the_others_run(user_batches):
    content = b"\n".join(
        [
            request_line(1),
            request_line(2, body={"input": "x", "temperature": 9}),
            request_line(3, body={"input": "x", "conversation": "conv_1"}),
            request_line(4),
        ]
    )

    batch = user_batches.finish(user_batches.create(content))

    assert (batch.status, batch.completed_lines, batch.failed_lines) == ("completed", 2, 2)
    errors = user_batches.content(batch.error_file_id)
    assert [line["custom_id"] for line in errors] == ["request-2", "request-3"]
    assert [line["response"]["status_code"] for line in errors] == [400, 400]
    assert errors[0]["response"]["body"]["error"]["param"] == "temperature"
    assert [line["custom_id"] for line in user_batches.content(batch.output_file_id)] == ["request-1", "request-4"]


@pytest.mark.parametrize(
    ("endpoint", "body", "expected"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "n": 2}, "chat.completion"),
        ("/v1/completions", {"prompt": "x"}, "text_completion"),
        ("/v1/embeddings", {"input": ["a", "bc"]}, "list"),
    ],
)
def test_each_endpoint_has_its_own_object(user_batches, endpoint, body, expected):
    batch = user_batches.finish(user_batches.create(request_line(1, url=endpoint, body=body), endpoint=endpoint))

    assert batch.completed_lines == 1, user_batches.content(batch.error_file_id)
    (line,) = user_batches.content(batch.output_file_id)
    assert line["response"]["body"]["object"] == expected
    if "n" in body:
        assert [choice["index"] for choice in line["response"]["body"]["choices"]] == [0, 1]


@pytest.mark.parametrize(("account", "line", "failed"), [(None, None, 0), ("local", None, 1), (None, "local", 1)])
def test_a_line_that_may_not_leave_is_rejected_if_another_host_serves_its_model(user_batches, account, line, failed):
    remote = Upstream("groq", "https://api.example.com/v1", ("m",))
    user_batches.worker = BatchWorker(Settings(engine="openai", upstreams=(remote,)), user_batches.worker.objects)
    with user_batches.database.connection() as connection:
        set_residency(connection, user_batches.caller.account_id, account)
    body = {"input": "x"} | ({"residency": line} if line else {})

    batch = user_batches.look(user_batches.create(request_line(1, body=body)))

    assert batch.failed_lines == failed
    if failed:
        (error,) = user_batches.content(batch.error_file_id)
        assert error["response"]["status_code"] == 403
        assert error["response"]["body"]["error"]["code"] == "residency"


def test_a_stored_response_stays(user_batches):
    batch = user_batches.finish(user_batches.create(request_line(1, body={"input": "x", "store": True})))

    (line,) = user_batches.content(batch.output_file_id)
    with user_batches.database.connection() as connection:
        stored = fetch_all(connection, "SELECT id FROM responses WHERE account_id = %s", (batch.account_id,))
    assert [row["id"] for row in stored] == [line["response"]["body"]["id"]]


def test_a_line_whose_response_was_deleted_is_an_error(user_batches):
    batch = user_batches.look(user_batches.create(2))
    first, _ = user_batches.line_jobs(batch)
    with user_batches.database.connection() as connection:
        connection.execute("DELETE FROM jobs WHERE id = %s", (first["id"],))

    batch = user_batches.finish(batch)

    (error,) = user_batches.content(batch.error_file_id)
    assert error["response"]["status_code"] == 404
    assert batch.completed_lines == 1
