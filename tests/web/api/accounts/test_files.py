"""`/v1/files`: listing, reading, downloading and deleting files."""

import io

import pytest

from models.accounts import files
from models.platform.ids import new_id
from tests.web.api_client import assert_error


@pytest.fixture
def file(user, database):
    """The id of a file of the user's account."""
    key, file_id = f"{user.caller.account_id}/x", new_id("file")
    user.client.app.state.platform.objects.put(key, io.BytesIO(b"some bytes"))
    with database.connection() as connection:
        files.insert(
            connection, file_id, user.caller.account_id, job_id=new_id("job"), filename="x.zip", purpose="export",
            content_type="application/zip", size=10, object_key=key, days=7,
        )  # fmt: skip
    return file_id


def test_a_file_is_listed_read_and_downloaded(user, file):
    assert [entry["id"] for entry in user.request("GET", "/v1/files").json()["data"]] == [file]
    assert user.request("GET", f"/v1/files/{file}").json()["bytes"] == 10

    content = user.request("GET", f"/v1/files/{file}/content")

    assert content.content == b"some bytes"
    assert content.headers["content-type"] == "application/zip"
    assert content.headers["content-disposition"] == 'attachment; filename="x.zip"'


def test_a_file_of_another_account_is_not_found(other_user, file):
    for method, path in [("GET", ""), ("GET", "/content"), ("DELETE", "")]:
        assert_error(other_user.request(method, f"/v1/files/{file}{path}"), 404, param="file_id")
    assert other_user.request("GET", "/v1/files").json()["data"] == []


def test_a_deleted_file_has_no_content(user, file):
    assert user.request("DELETE", f"/v1/files/{file}").json() == {"id": file, "object": "file", "deleted": True}

    assert_error(user.request("GET", f"/v1/files/{file}/content"), 404)
    assert list(user.request("GET", "/v1/files").json()["data"]) == []


def test_an_expired_file_is_not_found(user, file, database):
    with database.connection() as connection:
        connection.execute("UPDATE files SET expires_at = now() WHERE id = %s", (file,))

    assert_error(user.request("GET", f"/v1/files/{file}"), 404)


def test_a_range_of_the_content_is_sent(user, file):
    path = f"/v1/files/{file}/content"

    part = user.request("GET", path, headers={"range": "bytes=2-5"})
    outside = user.request("GET", path, headers={"range": "bytes=10-"})
    changed = user.request("GET", path, headers={"range": "bytes=2-5", "if-range": '"other"'})
    known = user.request("GET", path, headers={"if-none-match": part.headers["etag"]})

    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"me b", "bytes 2-5/10")
    assert (outside.status_code, outside.headers["content-range"]) == (416, "bytes */10")
    assert (changed.status_code, changed.content) == (200, b"some bytes")
    assert (known.status_code, known.content) == (304, b"")


def test_head_has_the_size_and_no_content(user, file):
    head = user.request("HEAD", f"/v1/files/{file}/content")

    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "10")
    assert head.headers["accept-ranges"] == "bytes"
