"""The long jobs and slow requests of one account delay the others by seconds at most."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.harness.waiting import wait_until
from models.memory import spaces
from models.memory.spaces import SpaceKey
from tests.web.worker_process import run_worker

#: Seconds within which another account is answered, on a busy machine: the jobs before it take many minutes.
PATIENCE = 60

#: A text of 70 tokens.
LONG_TEXT = "we planted another tree behind the house " * 10


@pytest.fixture(scope="module")
def workers(settings, tmp_path_factory):
    """A worker process of the pools memory and maintenance."""
    with run_worker(settings, ["memory", "maintenance"], tmp_path_factory.mktemp("memory")):
        yield


def states(user, kind):
    """Return the states of the account's last 100 jobs of a kind."""
    return [job["state"] for job in user.request("GET", f"/v1/jobs?limit=100&kind={kind}").json()["data"]]


def cancel_jobs(user):
    """Cancel all jobs of the account, and wait for their end."""

    def unfinished():
        jobs = user.request("GET", "/v1/jobs?limit=100").json()["data"]
        return [job["id"] for job in jobs if job["finished_at"] is None]

    for job_id in unfinished():
        user.request("POST", f"/v1/jobs/{job_id}/cancel")
    wait_until(lambda: not unfinished(), PATIENCE)


def timed(call):
    """Return what a call returns, and its seconds."""
    began = time.monotonic()
    return call(), time.monotonic() - began


def test_twenty_long_jobs_of_each_kind_delay_another_account_by_seconds(user, other_user, workers):
    # Given an account with 20 long imports, and 20 long writes
    lines = "\n".join(json.dumps({"text": f"{number} {LONG_TEXT}"}) for number in range(2000))
    texts = [{"text": f"{number} {LONG_TEXT}"} for number in range(500)]
    for _ in range(20):
        assert user.request("POST", "/v1/memories/import", content=lines).status_code == 202
        answer = user.request("POST", "/v1/memories", json={"memories": texts}, headers={"prefer": "respond-async"})
        assert answer.status_code == 202
    wait_until(
        lambda: "running" in states(user, "memory.import") and "running" in states(user, "memory.create"), PATIENCE
    )

    # When another account writes, embeds and imports
    created, creation = timed(lambda: other_user.request("POST", "/v1/memories", json={"text": "I like tea"}))
    embedded, embedding = timed(lambda: other_user.request("POST", "/v1/embeddings", json={"input": "hi"}))
    other_user.request("POST", "/v1/memories/import", content='{"text": "I like milk"}')
    _, importing = timed(lambda: wait_until(lambda: states(other_user, "memory.import") == ["completed"], PATIENCE))

    # Then it is served within seconds, and the cancelled jobs stop
    assert (created.status_code, embedded.status_code) == (201, 200)
    assert max(creation, embedding, importing) < PATIENCE
    cancel_jobs(user)


def test_deletions_that_wait_for_each_other_leave_connections_to_all(user, other_user, workers, database):
    # Given memories of a user, whose space another transaction holds
    texts = [{"text": f"tree {number}"} for number in range(40)]
    ids = [memory["id"] for memory in user.request("POST", "/v1/memories", json={"memories": texts}).json()["data"]]
    caller = user.caller
    with ThreadPoolExecutor(len(ids)) as threads:
        with database.transaction() as connection:
            space = spaces.find(connection, SpaceKey(caller.account_id, caller.user_id))
            spaces.lock(connection, space.id)

            # When all are deleted at once
            deletions = [threads.submit(user.request, "DELETE", f"/v1/memories/{id_}") for id_ in ids]
            wait_until(lambda: waits_for_locks(connection), PATIENCE)

            # Then one of them waits in Postgres, and the account and others are answered meanwhile
            for reader in (user, other_user):
                for path in ("/v1/me", "/v1/memories"):
                    assert reader.request("GET", path).status_code == 200
            assert waits_for_locks(connection) == 1

        # And all succeed once the lock is free
        assert {deletion.result().status_code for deletion in deletions} == {200}
    assert user.request("GET", "/v1/memories").json()["data"] == []


def waits_for_locks(connection):
    """Return the number of connections to the test's database that wait for a row."""
    row = connection.execute(
        "SELECT count(*) AS number FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock' AND application_name LIKE '% web'"
    ).fetchone()
    return row["number"]
