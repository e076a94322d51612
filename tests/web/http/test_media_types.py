"""Pages of other origins cannot make a browser send requests that create or change anything."""

import pytest

from models.platform.ids import new_id
from tests.web.api_client import assert_error


@pytest.fixture
def post(api):
    """`post(**headers)` signs up with these headers; returns the response."""

    def post(**headers):
        body = f'{{"email": "{new_id("test")}@example.com", "password": "correct horse battery"}}'
        return api.post(
            "/signup", content=body, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )

    return post


@pytest.mark.parametrize("media_type", ["text/plain", "text/plain;charset=UTF-8", "multipart/form-data; boundary=x"])
def test_a_form_cannot_sign_up(post, media_type):
    assert_error(post(content_type=media_type), 415, code="unsupported_media_type")


@pytest.mark.parametrize("headers", [{}, {"content_type": "application/x-www-form-urlencoded"}])
@pytest.mark.parametrize("sent_by_browser", [{"origin": "https://evil.example"}, {"sec_fetch_site": "cross-site"}])
def test_a_browser_must_send_json(post, headers, sent_by_browser):
    assert_error(post(**headers, **sent_by_browser), 415, code="unsupported_media_type")
    assert post(content_type="application/json", origin="http://127.0.0.1").status_code == 201


@pytest.mark.parametrize("headers", [{}, {"content_type": "application/x-www-form-urlencoded"}])
def test_curl_needs_no_header(post, headers):
    assert post(**headers).status_code == 201


def test_private_responses_are_not_stored_and_not_sniffed(user):
    for path in ("/v1/me", "/v1/jobs", "/v1/nowhere"):
        headers = user.request("GET", path).headers
        assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")


def test_public_documents_keep_their_own_caching(api):
    assert api.get("/.well-known/jwks.json").headers["cache-control"] == "public, max-age=300"
    assert api.get("/openapi.json").headers["cache-control"] == "no-cache"
