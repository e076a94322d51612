"""A job that has moved to `ended_jobs` looks to clients as before, with all that belongs to it."""

from dataclasses import dataclass

import pytest

from models.jobs import ended_partitions
from models.jobs.attempts import Ending, claim, end
from models.jobs.ended_jobs import Cursor, move_batch
from models.jobs.jobs import NewJob, enqueue
from models.journal import journal
from models.journal.archive import last_archived
from models.journal.events import event
from models.platform.database import fetch_all
from models.platform.ids import new_id
from tests.web.api_client import assert_error

#: What is requested before and after the move.
READS = (
    "/v1/jobs",
    "/v1/jobs?kind=turn.run&state=completed",
    "/v1/jobs/{job}",
    "/v1/jobs/{job}/events",
    "/v1/jobs/{job}/events?starting_after=0",
    "/v1/jobs/{job}/events?starting_after=3",
    "/v1/jobs/{job}/events?starting_after=4",
    "/v1/jobs/{job}/events?starting_after=5",
    "/v1/jobs/{child}",
    "/v1/jobs/{child}/events",
    "/v1/responses/{response}",
    "/v1/responses/{response}?stream=true",
    "/v1/responses/{response}?stream=true&starting_after=2",
    "/v1/responses/{response}?stream=true&starting_after=9",
    "/v1/responses/{response}/input_items",
    "/v1/schedules",
    "/v1/schedules/{schedule}",
    "/v1/schedules/{schedule}/firings",
    "/v1/meditations",
    "/v1/meditations/{meditation}",
    "/v1/meditations/{meditation}/events",
)

#: Requests that change nothing of a job that has ended.
WRITES = (("POST", "/v1/jobs/{job}/cancel"), ("POST", "/v1/responses/{response}/cancel"))

INSTRUCTIONS = "Answer in one word. " * 100


@dataclass(frozen=True, slots=True)
class Records:
    """The ids of an ended turn and of what refers to it."""

    job: str
    child: str
    response: str
    schedule: str
    meditation: str

    def path(self, template: str) -> str:
        """Return a path with these ids."""
        return template.format_map({name: getattr(self, name) for name in self.__slots__})


@pytest.fixture
def records(user, database, redis_client) -> Records:
    """An ended turn with a child job, a schedule that started it, and a meditation."""
    turn = user.create_response(instructions=INSTRUCTIONS)
    child, meditation = (NewJob(kind, user.caller.account_id) for kind in ("memory.remember", "meditation.run"))
    with database.transaction() as connection:
        enqueue(connection, child)
        enqueue(connection, meditation)
    for job_id in (turn["job_id"], child.id, meditation.id):
        end_job(database, redis_client, job_id)
    schedule, meditation_id = create_schedule(user), new_id("med")
    with database.connection() as connection:
        connection.execute("UPDATE jobs SET parent_id = %s WHERE id = %s", (turn["job_id"], child.id))
        connection.execute(
            "INSERT INTO firings (id, schedule_id, account_id, fire_time, fired_at, status, job_id)"
            " VALUES (%s, %s, %s, now(), now(), 'started', %s)",
            (new_id("fire"), schedule, user.caller.account_id, turn["job_id"]),
        )
        connection.execute(
            "INSERT INTO meditations (id, account_id, user_id, job_id, outcome) VALUES (%s, %s, %s, %s, 'applied')",
            (meditation_id, user.caller.account_id, user.caller.user_id, meditation.id),
        )
        connection.execute("UPDATE responses SET unremembered = false WHERE id = %s", (turn["id"],))
    return Records(turn["job_id"], child.id, turn["id"], schedule, meditation_id)


def create_schedule(user) -> str:
    work = {"kind": "turn", "request": {"input": "hello"}}
    body = {"name": "a schedule", "trigger": {"type": "interval", "seconds": 86_400}, "work": work}
    answer = user.request("POST", "/v1/schedules", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def end_job(database, redis_client, job_id):
    """Run a job to its end, which is archived in two chunks; Redis forgets its journal. It ended three days ago."""
    with database.connection() as connection:
        connection.execute("UPDATE jobs SET run_at = now(), state = 'queued' WHERE id = %s", (job_id,))
        job = claim(connection, job_id, message_id="a message", worker="a worker")
        first = last_archived(connection, job_id) + 1
    assert job is not None
    deltas = [event(first + number, "response.output_text.delta", {"delta": "é"}, 1) for number in range(3)]
    ending_type = "response.completed" if job.kind == "turn.run" else "sangha:job.completed"
    last = event(first + 3, ending_type, {"response": {"id": "resp", "status": "completed"}})
    with database.transaction() as connection:
        end(connection, job, Ending("completed", [last], {"a": "result"}), [*deltas, last])
    with database.connection() as connection:
        connection.execute("UPDATE jobs SET finished_at = now() - interval '3 days' WHERE id = %s", (job_id,))
    journal.delete(redis_client, job_id)


def move(database):
    """Move all jobs that ended days ago."""
    ended_partitions.create_missing(database)
    cursor = Cursor()
    while cursor:
        with database.transaction() as connection:
            cursor = move_batch(connection, 100, after=cursor).next


def jobs_left(database, user):
    with database.connection() as connection:
        return fetch_all(connection, "SELECT id FROM jobs WHERE account_id = %(id)s", {"id": user.caller.account_id})


def test_every_reader_answers_as_before(user, database, records):
    # Given the answers to requests for a turn and what belongs to it
    before = {path: answer_to(user, "GET", records.path(path)) for path in READS}
    before |= {path: answer_to(user, method, records.path(path)) for method, path in WRITES}
    assert before["/v1/jobs/{job}"][0] == 200

    # When its tree is moved
    move(database)
    assert jobs_left(database, user) == []

    # Then all are answered as before
    for path in READS:
        assert answer_to(user, "GET", records.path(path)) == before[path], path
    for method, path in WRITES:
        assert answer_to(user, method, records.path(path)) == before[path], path


def answer_to(user, method, path):
    answer = user.request(method, path)
    return answer.status_code, answer.text


def test_a_moved_response_is_deleted_with_all_that_belongs_to_it(user, database, records):
    move(database)

    assert user.request("DELETE", f"/v1/responses/{records.response}").status_code == 200

    assert_error(user.request("GET", f"/v1/responses/{records.response}"), 404)
    assert_error(user.request("GET", f"/v1/jobs/{records.job}"), 404)
    assert_error(user.request("GET", f"/v1/jobs/{records.job}/events"), 404)
    assert_error(user.request("GET", f"/v1/jobs/{records.child}"), 404)


def test_a_moved_job_of_another_account_is_not_found(user, other_user, database, records):
    move(database)

    assert_error(other_user.request("GET", f"/v1/jobs/{records.job}"), 404, param="job_id")
    assert_error(other_user.request("DELETE", f"/v1/responses/{records.response}"), 404)
    assert user.request("GET", f"/v1/jobs/{records.job}").status_code == 200
