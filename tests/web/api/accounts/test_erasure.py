"""Exporting an account, and erasing an account or a user after a confirmation."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from psycopg.types.json import Jsonb

from tests.web.api_client import assert_error


def test_an_export_is_a_queued_job(user):
    job = user.request("POST", "/v1/account/export")

    assert job.status_code == 202
    assert job.json()["kind"] == "account.export"
    assert user.request("GET", f"/v1/jobs/{job.json()['id']}").json()["state"] == "queued"


def limit(database, user, **limits):
    with database.connection() as connection:
        connection.execute("UPDATE accounts SET limits = %s WHERE id = %s", (Jsonb(limits), user.caller.account_id))


def test_an_account_has_one_unfinished_export(user, other_user):
    first = user.request("POST", "/v1/account/export").json()

    assert_error(user.request("POST", "/v1/account/export"), 429, code="already_running")
    assert other_user.request("POST", "/v1/account/export").status_code == 202
    assert user.request("POST", f"/v1/jobs/{first['id']}/cancel").status_code == 200
    assert user.request("POST", "/v1/account/export").status_code == 202


def test_exports_at_once_are_one(user):
    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(lambda _: user.request("POST", "/v1/account/export").status_code, range(8)))

    assert sorted(statuses) == [202] + 7 * [429]


def test_an_export_counts_as_an_unfinished_job(user, database):
    limit(database, user, unfinished_jobs=0)

    assert_error(user.request("POST", "/v1/account/export"), 429, code="too_many_jobs")


def test_an_export_needs_room_for_files(user, database):
    limit(database, user, stored_bytes=0)

    assert_error(user.request("POST", "/v1/account/export"), 429, code="storage_full")


@pytest.mark.parametrize(
    ("path", "params"), [("/v1/account", {}), ("/v1/account", {"confirm": "yes"}), ("/v1/me", {"confirm": ""})]
)
def test_deletion_requires_a_matching_confirmation(user, path, params):
    answer = user.request("DELETE", path, params=params)

    assert_error(answer, 400, param="confirm")
    assert user.request("GET", "/v1/files").status_code == 200


def test_a_deleted_account_rejects_its_tokens(user):
    answer = user.request("DELETE", "/v1/account", params={"confirm": user.caller.account_id})

    assert answer.status_code == 202, answer.text
    assert_error(user.request("GET", "/v1/jobs"), 401)


def test_deleting_a_user_frees_the_email_address(user, database):
    with database.connection() as connection:
        email = connection.execute("SELECT email FROM users WHERE id = %s", (user.caller.user_id,)).fetchone()["email"]

    assert user.request("DELETE", "/v1/me", params={"confirm": email.upper()}).status_code == 202

    assert_error(user.request("GET", "/v1/jobs"), 401)
    with database.connection() as connection:
        assert connection.execute("SELECT 1 FROM users WHERE email = %s", (email,)).fetchone() is None


def test_the_sole_owner_of_an_account_with_members_cannot_delete_their_user(user, other_user, database):
    with database.connection() as connection:
        connection.execute(
            "INSERT INTO memberships (account_id, user_id, role) VALUES (%s, %s, 'admin')",
            (user.caller.account_id, other_user.caller.user_id),
        )
        email = connection.execute("SELECT email FROM users WHERE id = %s", (user.caller.user_id,)).fetchone()["email"]

    assert_error(user.request("DELETE", "/v1/me", params={"confirm": email}), 409, code="sole_owner")

    assert user.request("GET", "/v1/jobs").status_code == 200
