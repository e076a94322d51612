"""OpenAI's unmodified client uploads, lists, reads and deletes files, whole and in parts."""

import hashlib
import io
import os
import time

import httpx
import pytest
from openai import BadRequestError, ConflictError, NotFoundError, OpenAI

from models.platform.ids import new_id
from tests.web.api_client import app_client


@pytest.fixture(scope="module", params=["folder", "s3", "conditional_s3"])
def api(request, settings):
    """The application with a folder, and with S3 services, to which it redirects downloads."""
    if request.param == "folder":
        with app_client(settings) as client:
            yield client
        return
    service = request.getfixturevalue(request.param)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in service.environment.items():
            patch.setenv(name, value)
        update = {"object_store": service.location, "presigned_downloads": True}
        with app_client(settings.model_copy(update=update)) as client:
            yield client


@pytest.fixture
def openai(user):
    return OpenAI(base_url=f"{user.client.base_url}/v1", api_key=user.token, max_retries=0, timeout=30)


@pytest.fixture(autouse=True)
def small_objects(monkeypatch):
    """Objects of 1,000 bytes."""
    monkeypatch.setattr("web.api.file_forms.OBJECT_BYTES", 1000)


def test_a_file_is_uploaded_and_read_back(openai):
    content = os.urandom(3_500)

    file = openai.files.create(file=("Größe.bin", content), purpose="user_data")

    assert (file.object, file.bytes, file.filename, file.status) == ("file", 3_500, "Größe.bin", "processed")
    assert (file.purpose, file.expires_at) == ("user_data", None)
    assert openai.files.retrieve(file.id) == file
    assert openai.files.content(file.id).read() == content
    assert openai.files.wait_for_processing(file.id) == file


def test_a_file_expires_when_the_request_says(openai):
    file = openai.files.create(
        file=io.BytesIO(b"hello"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    later = openai.files.create(file=io.BytesIO(b"hello"), purpose="batch")

    assert file.expires_at == file.created_at + 3600
    assert later.expires_at == later.created_at + 30 * 86400

    for seconds in (3599, 2592001):
        with pytest.raises(BadRequestError, match="seconds"):
            openai.files.create(file=b"x", purpose="batch", expires_after={"anchor": "created_at", "seconds": seconds})


def test_files_are_listed_page_by_page_in_both_orders(openai):
    ids = [openai.files.create(file=(f"{number}.txt", b"x"), purpose="user_data").id for number in range(5)]
    openai.files.create(file=("b.jsonl", b"{}"), purpose="batch")

    listed = [file.id for file in openai.files.list(purpose="user_data", limit=2)]
    ascending = [file.id for file in openai.files.list(purpose="user_data", limit=2, order="asc")]

    assert listed == ids[::-1]
    assert ascending == ids
    assert len(openai.files.list(limit=10_000).data) == 6


def test_no_address_serves_a_deleted_file(openai, user):
    # Given a file, at a signed URL of the object store where there is one
    file = openai.files.create(file=("a.txt", b"<b>"), purpose="user_data")
    signs = user.client.app.state.platform.settings.presigned_downloads
    answer = user.request("GET", f"/v1/files/{file.id}/content")
    assert answer.status_code == (302 if signs else 200)
    signed = answer.headers.get("location")
    assert (httpx.get(signed).content if signed else answer.content) == b"<b>"

    # When it is deleted
    openai.files.delete(file.id)

    # Then neither URL has it
    assert user.request("GET", f"/v1/files/{file.id}/content").status_code == 404
    assert not signed or httpx.get(signed).status_code in (403, 404)  # as S3 says to those who may not list


def test_a_deleted_file_is_gone(openai):
    file = openai.files.create(file=b"x", purpose="user_data")

    assert openai.files.delete(file.id).deleted

    with pytest.raises(NotFoundError):
        openai.files.content(file.id)
    with pytest.raises(NotFoundError):
        openai.files.delete(file.id)
    assert openai.files.list().data == []


def test_a_file_is_uploaded_in_parts(openai, tmp_path):
    content = os.urandom(10_500)
    path = tmp_path / "large.bin"
    path.write_bytes(content)

    upload = openai.uploads.upload_file_chunked(
        file=path,
        mime_type="application/octet-stream",
        purpose="user_data",
        part_size=4_000,
        md5=hashlib.md5(content).hexdigest(),
    )

    assert upload.status == "completed"
    assert (upload.file.bytes, upload.file.filename) == (10_500, "large.bin")
    assert openai.files.content(upload.file.id).read() == content


def test_parts_are_joined_in_the_order_that_the_client_names(openai):
    upload = openai.uploads.create(bytes=6, filename="x.txt", mime_type="text/plain", purpose="user_data")
    second = openai.uploads.parts.create(upload.id, data=b"def")
    unused = openai.uploads.parts.create(upload.id, data=b"ghi")
    first = openai.uploads.parts.create(upload.id, data=b"abc")

    completed = openai.uploads.complete(upload.id, part_ids=[first.id, second.id])
    repeated = openai.uploads.complete(upload.id, part_ids=[first.id, second.id])

    assert openai.files.content(completed.file.id).read() == b"abcdef"
    assert repeated.file == completed.file
    assert unused.upload_id == upload.id
    assert upload.expires_at - upload.created_at == 3600


@pytest.mark.parametrize(
    ("parts", "md5", "message"),
    [
        (["a"], None, "have 3 bytes"),
        (["a", "b", "b"], None, "twice"),
        (["a", "x"], None, "no part"),
        (["a", "b"], "0" * 32, "MD5"),
    ],
)
def test_an_upload_is_completed_only_with_what_was_declared(openai, parts, md5, message):
    upload = openai.uploads.create(bytes=6, filename="x.txt", mime_type="text/plain", purpose="user_data")
    ids = {name: openai.uploads.parts.create(upload.id, data=name.encode() * 3).id for name in "ab"}
    part_ids = [ids.get(name, "part_none") for name in parts]

    with pytest.raises(BadRequestError, match=message):
        openai.uploads.complete(upload.id, part_ids=part_ids, **({"md5": md5} if md5 else {}))

    assert openai.uploads.complete(upload.id, part_ids=[ids["a"], ids["b"]]).status == "completed"


def test_a_cancelled_upload_takes_no_parts_and_counts_for_nothing(openai, user):
    upload = openai.uploads.create(bytes=600, filename="x.txt", mime_type="text/plain", purpose="user_data")
    part = openai.uploads.parts.create(upload.id, data=b"x" * 600)
    assert user.request("GET", "/v1/account/usage").json()["stored_bytes"] == 600

    assert openai.uploads.cancel(upload.id).status == "cancelled"

    with pytest.raises(ConflictError):
        openai.uploads.parts.create(upload.id, data=b"x")
    with pytest.raises(ConflictError):
        openai.uploads.complete(upload.id, part_ids=[part.id])
    assert user.request("GET", "/v1/account/usage").json()["stored_bytes"] == 0


def test_an_upload_expires_after_an_hour(openai, user, database):
    upload = openai.uploads.create(bytes=3, filename="x.txt", mime_type="text/plain", purpose="user_data")
    part = openai.uploads.parts.create(upload.id, data=b"abc")
    with database.connection() as connection:
        connection.execute("UPDATE uploads SET expires_at = now() WHERE id = %s", (upload.id,))

    with pytest.raises(ConflictError, match="expired"):
        openai.uploads.complete(upload.id, part_ids=[part.id])
    with pytest.raises(ConflictError, match="expired"):
        openai.uploads.parts.create(upload.id, data=b"x")


def test_a_repeated_request_with_a_key_creates_one_file(openai):
    key = {"Idempotency-Key": new_id("key")}

    first = openai.files.create(file=("a.txt", b"abc"), purpose="user_data", extra_headers=key)
    second = openai.files.create(file=("a.txt", b"abc"), purpose="user_data", extra_headers=key)

    assert first == second
    assert len(openai.files.list().data) == 1
    with pytest.raises(Exception, match="Idempotency-Key"):
        openai.files.create(file=("a.txt", b"other"), purpose="user_data", extra_headers=key)
    assert openai.files.content(first.id).read() == b"abc"


def test_what_a_rejected_upload_has_stored_is_deleted(openai, user, database):
    with pytest.raises(BadRequestError, match="purpose"):
        openai.files.create(file=b"x" * 5_000, purpose="nothing")

    deadline = time.monotonic() + 20
    while user.request("GET", "/v1/account/usage").json()["stored_bytes"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert user.request("GET", "/v1/account/usage").json()["stored_bytes"] == 0
    assert openai.files.list().data == []
