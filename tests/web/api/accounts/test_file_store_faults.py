"""Given an S3 service that fails while files are used: callers may retry, and see nothing half-written."""

import os
from datetime import timedelta

import httpx
import pytest

from models.platform import s3_objects
from models.platform.object_store import ObjectStore
from pipelines.files.completion import delete_left_over
from tests.s3_faults import Answer, error, fault_proxy
from tests.web.api_client import ApiUser, app_client

#: Lets an hour pass for uploads and objects.
AGE = (
    "UPDATE uploads SET expires_at = now() WHERE account_id = %s",
    "UPDATE file_objects SET created_at = now() - interval '1 hour' WHERE account_id = %s",
)

CONTENT = os.urandom(9_000_000)  # three objects


@pytest.fixture
def proxy(s3, monkeypatch):
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(s3_objects.RETRIES, "max_retries", 0)
    monkeypatch.setitem(s3_objects.CLIENT, "read_timeout", timedelta(milliseconds=500))
    with fault_proxy(s3.url) as proxy:
        yield proxy


@pytest.fixture
def stored(settings, s3, proxy):
    """The settings of an installation behind the proxy."""
    return settings.model_copy(update={"object_store": s3.location, "object_store_endpoint": proxy.url})


@pytest.fixture
def user(stored, database):
    with app_client(stored) as client:
        yield ApiUser(client, database)


def upload(user):
    return user.request("POST", "/v1/files", files={"file": ("a.bin", CONTENT)}, data={"purpose": "user_data"})


def assert_unavailable(answer):
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["error"]["message"] == "File storage is temporarily unavailable."
    assert "S3" not in answer.text


@pytest.mark.parametrize("fault", [error(503, "SlowDown"), error(507, "XMinioStorageFull"), error(403, "AccessDenied")])
def test_nothing_is_visible_of_an_upload_whose_store_fails_half_way(user, proxy, fault, database, stored):
    # Given a store that fails at the second object
    puts = []

    def fail_second(method):
        puts.extend([method] if method == "PUT" else [])
        return fault if len(puts) > 1 else None

    proxy.before = fail_second
    # When a file is uploaded
    assert_unavailable(upload(user))
    proxy.heal()
    # Then there is none, and a sweep deletes its first object
    assert user.request("GET", "/v1/files").json()["data"] == []
    with database.connection() as connection:
        for statement in AGE:
            connection.execute(statement, (user.caller.account_id,))
    objects = ObjectStore.open(stored)
    while delete_left_over(database, objects):
        pass
    assert list(objects.list(user.caller.account_id)) == []
    # And a retry succeeds
    assert upload(user).status_code == 200


def test_a_store_that_stalls_is_given_up(user, proxy):
    proxy.hold.clear()
    assert_unavailable(upload(user))
    proxy.heal()
    assert user.request("GET", "/v1/files").json()["data"] == []


def test_a_file_that_cannot_be_read_now_can_be_read_later(user, proxy):
    file_id = upload(user).json()["id"]
    proxy.before = lambda method: error(503, "SlowDown") if method == "GET" else None

    assert_unavailable(user.request("GET", f"/v1/files/{file_id}/content"))

    proxy.heal()
    assert user.request("GET", f"/v1/files/{file_id}/content").content == CONTENT


def test_altered_content_ends_the_response_before_its_end(user, proxy):
    file_id = upload(user).json()["id"]
    proxy.after = lambda answer: Answer(answer.status, answer.headers, answer.body[:-1] + b"?" if answer.body else b"")

    with pytest.raises(httpx.RemoteProtocolError):
        user.request("GET", f"/v1/files/{file_id}/content")


def test_a_file_is_deleted_for_its_user_while_the_store_is_away(user, proxy):
    file_id = upload(user).json()["id"]
    proxy.before = lambda method: error(503, "SlowDown")

    user.request("DELETE", f"/v1/files/{file_id}")

    assert user.request("GET", f"/v1/files/{file_id}").status_code == 404
