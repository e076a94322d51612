"""Forms that are malformed or too large, names with tricks, and content that a browser would run."""

import gzip
import os
import socket
import time

import httpx
import pytest

from models.accounts.accounts import Role
from tests.web.api_client import ApiUser, assert_error

BOUNDARY = "xxBOUNDARYxx"
TYPE = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


def part(name, value, filename=None):
    named = f'; filename="{filename}"' if filename is not None else ""
    return f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + value + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()
FILE, PURPOSE = part("file", b"content", "a.txt"), part("purpose", b"user_data")


def post(user, body, headers=TYPE):
    return user.request("POST", "/v1/files", content=body, headers=headers)


def upload(user, name, content=b"content", **fields):
    data = {"purpose": "user_data", **fields}
    return user.request("POST", "/v1/files", files={"file": (name, content)}, data=data)


def wait_until_nothing_is_stored(user, folder=None):
    deadline = time.monotonic() + 20
    while (stored := user.request("GET", "/v1/account/usage").json()["stored_bytes"]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert stored == 0
    assert user.request("GET", "/v1/files").json()["data"] == []


@pytest.mark.parametrize("body", [FILE + PURPOSE + END, PURPOSE + FILE + END])
def test_fields_may_be_in_any_order(user, body):
    answer = post(user, body)

    assert answer.status_code == 200, answer.text
    assert answer.json()["bytes"] == len(b"content")


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"", "invalid_form", "ends before"),
        (b"nonsense", "invalid_form", "cannot be read"),
        (FILE + PURPOSE, "invalid_form", "ends before"),
        (FILE + PURPOSE + END[:-5], "invalid_form", "ends before"),
        (part("file", b"x" * 2_000, "a.txt")[:-4], "invalid_form", "ends before"),
        (PURPOSE + END, "missing_required_parameter", "'file'"),
        (FILE + END, "missing_required_parameter", "purpose"),
        (FILE + FILE + PURPOSE + END, "invalid_request", "one 'file'"),
        (FILE + PURPOSE + PURPOSE + END, "invalid_request", "repeated"),
        (FILE + part("purpose", b"x" * 5_000) + END, "invalid_request", "more than 4096 bytes"),
        (b"".join(part(f"f{number}", b"x") for number in range(10_000)) + FILE + END, "invalid_form", "16 fields"),
        (FILE + PURPOSE + part("unknown", b"x") + END, "unknown_parameter", "unknown"),
        (FILE + PURPOSE + part("expires_after", b"x") + END, None, "expires_after"),
        (FILE + PURPOSE + part("expires_after[seconds]", b"3600") + END, None, "anchor"),
        (FILE + PURPOSE + part("purpose[x]", b"3600") + END, None, "purpose"),
        (b"--" + BOUNDARY.encode() + b"\r\n" + b"a: b\r\n" * 100 + b"\r\n", "invalid_form", "cannot be read"),
        (b"--" + BOUNDARY.encode() + b"\r\ncontent-disposition: " + b"x" * 50_000, "invalid_form", "cannot be read"),
        (b"x" * 100_000 + FILE + PURPOSE + END, "invalid_form", ""),
        (FILE + PURPOSE + END + b"x" * 100_000, "invalid_form", "besides the file"),
    ],
)
def test_a_malformed_form_is_rejected_and_stores_nothing(user, body, code, message):
    answer = post(user, body)

    text = assert_error(answer, 400, code=code)
    assert message in text
    wait_until_nothing_is_stored(user)


@pytest.mark.parametrize(
    "content_type", ["application/json", "multipart/form-data", "multipart/form-data; boundary=" + "x" * 50_000, ""]
)
def test_another_media_type_or_boundary_is_rejected(user, content_type):
    assert_error(post(user, FILE + PURPOSE + END, {"content-type": content_type}), 400, code="invalid_form")


def test_a_boundary_of_a_megabyte_is_rejected(user):
    headers = {"content-type": "multipart/form-data; boundary=" + "x" * 1_000_000}
    try:
        status = post(user, FILE, headers).status_code
    except httpx.TransportError:  # the connection is closed while the header is being sent
        status = 431

    assert status in (400, 431)


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Windows\\evil.exe", "evil.exe"),
        ("..", "file"),
        (".htaccess", "htaccess"),
        ("a\u202egnp.exe", "agnp.exe"),
        ("<img src=x onerror=alert(1)>.html", "<img src=x onerror=alert(1)>.html"),
        ("line\u2028break\u2066.txt", "linebreak.txt"),
        ("   ", "file"),
        ("e\u0301.txt", "\u00e9.txt"),
    ],
)
def test_names_are_made_safe(user, name, stored):
    file = upload(user, name).json()

    assert file["filename"] == stored
    content = user.request("GET", f"/v1/files/{file['id']}/content")
    disposition = content.headers["content-disposition"]
    assert disposition.startswith('attachment; filename="')
    assert "\n" not in disposition


def test_a_long_name_keeps_its_ending(user):
    name = upload(user, "ü" * 1_000 + ".jsonl").json()["filename"]

    assert len(name.encode()) <= 255
    assert name.endswith("ü.jsonl")


def test_a_header_cannot_be_injected_by_a_name(user):
    file = post(user, part("file", b"x", 'a";\tx=y%0d%0aset-cookie: a=b') + PURPOSE + END)

    content = user.request("GET", f"/v1/files/{file.json()['id']}/content")

    assert "set-cookie" not in content.headers
    assert content.headers["content-disposition"].count("\r") == 0


@pytest.mark.parametrize(
    ("name", "content", "served"),
    [
        ("a.html", b"<html><script>alert(1)</script>", "text/plain; charset=utf-8"),
        ("a.svg", b"<svg onload=alert(1) xmlns='http://www.w3.org/2000/svg'/>", "text/plain; charset=utf-8"),
        ("a.txt", b"\xff\xfe<\0s\0", "application/octet-stream"),
        ("a.png", b"\x89PNG\r\n\x1a\n123", "image/png"),
        ("a.html", b"%PDF-1.7", "application/pdf"),
        ("a.jsonl", '{"a": "ü"}'.encode(), "application/jsonl"),
        ("a.js", b"alert(1)", "text/plain; charset=utf-8"),
        ("a.zip", b"PK\x03\x04bomb", "application/zip"),
    ],
)
def test_content_is_served_as_something_that_no_browser_runs(user, name, content, served):
    file = upload(user, name, content).json()

    answer = user.request("GET", f"/v1/files/{file['id']}/content")

    assert answer.content == content
    assert answer.headers["content-type"] == served
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert answer.headers["content-disposition"].startswith("attachment")


def test_the_declared_type_of_an_upload_does_not_make_it_active(user):
    body = {"bytes": 5, "filename": "a", "mime_type": "text/html", "purpose": "user_data"}
    created = user.request("POST", "/v1/uploads", json=body).json()
    added = user.request("POST", f"/v1/uploads/{created['id']}/parts", files={"data": ("x", b"\xff\0<b>")}).json()

    done = user.request("POST", f"/v1/uploads/{created['id']}/complete", json={"part_ids": [added["id"]]})

    assert done.status_code == 200, done.text
    content = user.request("GET", f"/v1/files/{done.json()['file']['id']}/content")
    assert content.headers["content-type"] == "application/octet-stream"


def test_a_compressed_form_is_limited_by_what_it_contains(user):
    body = gzip.compress(part("file", b"0" * 300_000, "a.txt") + PURPOSE + END)

    answer = post(user, body, TYPE | {"content-encoding": "gzip"})

    assert answer.status_code == 200
    assert answer.json()["bytes"] == 300_000


def limit(database, user, size):
    with database.connection() as connection:
        connection.execute(
            "UPDATE accounts SET limits = jsonb_build_object('stored_bytes', %s::bigint) WHERE id = %s",
            (size, user.caller.account_id),
        )


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_above_the_limit_of_the_account_is_rejected(user, database, declared, compressed):
    limit(database, user, 200_000)
    body = PURPOSE + part("file", b"\0" * 300_000, "a.txt") + END
    headers = dict(TYPE)
    if compressed:
        body, headers = gzip.compress(body), headers | {"content-encoding": "gzip"}

    answer = post(user, body if declared else iter([body[:100], body[100:]]), headers)

    assert_error(answer, 413, code="file_too_large")
    wait_until_nothing_is_stored(user)


def test_parts_and_uploads_count_for_the_limit(user, database):
    limit(database, user, 1_000)
    body = {"bytes": 800, "filename": "a", "mime_type": "text/plain", "purpose": "user_data"}
    assert user.request("POST", "/v1/uploads", json=body).status_code == 200

    assert_error(user.request("POST", "/v1/uploads", json=body), 429, code="storage_full")
    assert_error(upload(user, "a.txt", b"x" * 300), 429, code="storage_full")


def test_a_client_that_disconnects_leaves_nothing(user, monkeypatch, settings):
    monkeypatch.setattr("web.api.file_forms.OBJECT_BYTES", 1000)
    host, port = user.client.base_url.host, user.client.base_url.port
    with socket.create_connection((host, port)) as connection:
        head = (
            f"POST /v1/files HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {user.token}\r\n"
            f"content-type: {TYPE['content-type']}\r\ncontent-length: 100000\r\n\r\n"
        )
        connection.sendall(head.encode() + part("file", os.urandom(20_000), "a.bin"))
        deadline = time.monotonic() + 20
        while not user.request("GET", "/v1/account/usage").json()["stored_bytes"] and time.monotonic() < deadline:
            time.sleep(0.02)
        assert user.request("GET", "/v1/account/usage").json()["stored_bytes"] == 100_000
        assert user.request("GET", "/v1/files").json()["data"] == []

    wait_until_nothing_is_stored(user)


def test_a_member_reads_their_own_files_and_those_for_all(user, database):
    member = ApiUser(user.client, database)
    with database.connection() as connection:
        connection.execute(
            "INSERT INTO memberships (account_id, user_id, role) VALUES (%s, %s, 'member')",
            (user.caller.account_id, member.caller.user_id),
        )
    caller = type(user.caller)(
        member.caller.user_id, user.caller.account_id, Role.MEMBER, session_id=member.caller.session_id
    )
    token = user.client.app.state.platform.tokens.issue(caller)
    member.token = token
    ids = {
        audience: upload(user, "a.txt", audience=audience).json()["id"] for audience in ("account", "user", "admins")
    }
    own = upload(member, "own.txt").json()["id"]

    assert {file["id"] for file in member.request("GET", "/v1/files").json()["data"]} == {ids["account"], own}
    for audience in ("user", "admins"):
        for method, path in [("GET", ""), ("GET", "/content"), ("DELETE", "")]:
            assert_error(member.request(method, f"/v1/files/{ids[audience]}{path}"), 404)
    assert {file["id"] for file in user.request("GET", "/v1/files").json()["data"]} == {*ids.values(), own}
    assert_error(upload(member, "a.txt", audience="admins"), 403)
