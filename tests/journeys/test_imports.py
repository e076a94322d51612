"""Imports that are useless, cancelled or erased stop at once, and their files are deleted."""

import json
from typing import Any

import pytest

from bench.harness.waiting import wait_until
from tests.journeys.stack import ON_REDIS, AccountOwner, Installation

#: An import that takes minutes.
LONG = "\n".join(
    json.dumps({"text": f"In week {week} we planted another tree behind the house"}) for week in range(20_000)
)


def start_import(owner: AccountOwner, content: bytes | str) -> str:
    """Start an import, and return its job's id."""
    response = owner.request("POST", "/v1/memories/import", content=content)
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def job(owner: AccountOwner, job_id: str) -> dict[str, Any]:
    return owner.get(f"/v1/jobs/{job_id}")


def stored_files(owner: AccountOwner) -> list[str]:
    """Return the names of the account's objects."""
    folder = owner.installation.settings.home / "objects" / owner.account
    return [path.name for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def workers(stack: Installation) -> None:
    """A worker of the pools memory and maintenance."""
    stack.start_worker("", "memory", "maintenance")


@ON_REDIS
def test_a_file_of_invalid_lines_is_given_up_and_deleted(workers: None, user: AccountOwner):
    job_id = start_import(user, b"{}\n" * 20_000_000)

    ended = wait_until(lambda: (now := job(user, job_id))["state"] == "failed" and now)

    assert ended["error"]["code"] == "too_many_invalid_lines"
    assert ended["result"]["failed"] == 1001
    wait_until(lambda: stored_files(user) == [])


@ON_REDIS
def test_files_of_cancelled_imports_are_deleted(workers: None, user: AccountOwner):
    # Given imports that run, and imports that wait for them
    job_ids = [start_import(user, LONG) for _ in range(5)]
    wait_until(lambda: [job(user, job_id)["state"] for job_id in job_ids].count("running") == 2)
    wait_until(lambda: job(user, job_ids[0])["progress"])
    assert len(stored_files(user)) == 5
    assert user.get("/v1/account/usage")["stored_bytes"] == 5 * len(LONG)

    # When all are cancelled
    for job_id in job_ids:
        assert user.request("POST", f"/v1/jobs/{job_id}/cancel").status_code == 200

    # Then they stop, and nothing of their files is left
    wait_until(lambda: {job(user, job_id)["state"] for job_id in job_ids} == {"cancelled"})
    wait_until(lambda: stored_files(user) == [])
    wait_until(lambda: user.get("/v1/account/usage")["stored_bytes"] == 0)


@ON_REDIS
def test_an_account_is_erased_while_it_imports(workers: None, stack: Installation, user: AccountOwner):
    # Given an account with more imports than threads
    job_ids = [start_import(user, LONG) for _ in range(5)]
    wait_until(lambda: [job(user, job_id)["state"] for job_id in job_ids].count("running") == 2)

    # When it is erased
    answer = user.request("DELETE", "/v1/account", params={"confirm": user.account})
    assert answer.status_code == 202, answer.text

    # Then its jobs end, and nothing of it is left
    def state() -> str:
        return str(stack.rows("SELECT state FROM jobs WHERE id = %s", answer.json()["job_id"])[0]["state"])

    wait_until(lambda: state() == "completed", 60, what="the erasure")
    assert stored_files(user) == []
    assert stack.rows("SELECT FROM memories WHERE account_id = %s", user.account) == []
    assert stack.rows("SELECT FROM jobs WHERE account_id = %s", user.account) == []
