"""`web_fetch` reads pages of hosts that the operator allows, as text, and follows redirects to no others."""

import anyio
import httpx2
import pytest

from pipelines.agents.egress import EgressRefused, parse_policy
from pipelines.agents.web_fetch import MAX_PAGE, fetch_text, html_text
from tests.pipelines.agents.conftest import call_job
from tests.pipelines.agents.http_server import http_server, respond

LOCAL = ("127.0.0.1",)
PAGE = b"""<!doctype html><html><head><title>The  title</title><style>p {}</style></head><body>
<script>alert("x")</script><h1>Heading</h1><p>One &amp; two<br>three</p><ul><li>a<li>b</ul>
<noscript>hidden</noscript></body></html>"""


def fetch(url, allow=LOCAL, deny=()):
    return anyio.run(fetch_text, parse_policy(allow, deny), url)


def redirecting(locations):
    """Return a handler that redirects as the path says."""

    def handle(request):
        if location := locations.get(request.path):
            respond(request, b"", 302, Location=location)
        else:
            respond(request, b"the end")

    return handle


def test_a_page_is_its_title_and_text():
    with http_server(lambda request: respond(request, PAGE, 200, "text/html; charset=utf-8")) as url:
        assert fetch(url) == "The title\nHeading\nOne & two\nthree\na\nb"


@pytest.mark.parametrize(
    ("page", "text"),
    [("<p>unclosed <b>bold", "unclosed bold"), ("<script>a</p>b", ""), ("x" * 10, "x" * 10), ("", ""),
     ("<div><svg><title>x</title>y</svg>z</div>", "x\nz"), ("</div></script>a", "a")],
)  # fmt: skip
def test_malformed_pages_have_a_text(page, text):
    assert html_text(page) == text


def test_other_texts_are_as_they_are_and_data_is_described():
    with http_server(lambda request: respond(request, b'{"a":1}', 200, "application/json")) as url:
        assert fetch(url) == '{"a":1}'
    with http_server(lambda request: respond(request, b"123", 200, "image/png")) as url:
        assert fetch(url) == "[image/png, 3 bytes, which cannot be shown as text]"


def test_redirects_are_followed_three_times():
    with http_server(redirecting({"/0": "/1", "/1": "/2", "/2": "/3"})) as url:
        assert fetch(f"{url}/0") == "the end"


def test_more_redirects_are_an_error():
    chain = redirecting({f"/{number}": f"/{number + 1}" for number in range(9)})

    with http_server(chain) as url, pytest.raises(httpx2.TooManyRedirects):
        fetch(f"{url}/0")


@pytest.mark.parametrize(
    "location", ["http://169.254.169.254/latest/meta-data", "http://10.0.0.1/", "file:///etc/passwd", "ftp://x/"]
)
def test_a_redirect_to_another_host_or_scheme_is_refused(location):
    with http_server(redirecting({"/0": location})) as url, pytest.raises((EgressRefused, httpx2.UnsupportedProtocol)):
        fetch(f"{url}/0")


def test_a_page_of_100_mib_is_not_read():
    def handle(request):
        request.send_response(200)
        request.send_header("Content-Type", "text/html")
        request.send_header("Content-Length", str(100 << 20))
        request.end_headers()
        for _ in range(100):
            request.wfile.write(bytes(1 << 20))

    with http_server(handle) as url, pytest.raises(httpx2.StreamError, match=f"{MAX_PAGE:,}"):
        fetch(url)


@pytest.mark.parametrize(
    ("status", "allow", "error"),
    [(200, LOCAL, None), (404, LOCAL, "status 404"), (200, ("other.example",), "does not name"), (200, (), "no tool")],
)
def test_a_call_returns_the_page_or_an_error(tool_jobs, start, status, allow, error):
    # Given
    tool_jobs.settings = tool_jobs.settings.model_copy(update={"web_fetch_allow": allow})
    response = start({"type": "mcp", "server_label": "sangha"})
    with http_server(lambda request: respond(request, b"hello", status)) as url:
        # When
        result = tool_jobs.run(call_job(response, "web_fetch", f'{{"url": "{url}"}}', "sangha"))

    # Then
    assert result["output"] == (None if error else "hello")
    assert (error or "") in (result["error"]["content"][0]["text"] if error else "")
