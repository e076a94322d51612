"""The tool `web_fetch`: read a web page of a host that the operator allows, as text."""

from collections.abc import Sequence
from html.parser import HTMLParser

import anyio
import httpx2

from models.jobs.attempt_context import Attempt
from models.platform.settings import Settings
from pipelines.agents import egress, event_loop
from pipelines.agents.bounded_stream import ByteBudget
from pipelines.agents.call_results import CallResult, error_result
from pipelines.agents.egress import MAX_REDIRECTS, EgressPolicy, EgressRefused, Resolver, guarded_client, resolve
from pipelines.agents.mcp.values import clean_text, cut_bytes

#: Bytes of a page, and seconds for all of it and between two of its parts.
MAX_PAGE, TIMEOUT, SILENCE = 2 << 20, 30.0, 15.0

#: Elements whose text is not that of the page.
SKIPPED = frozenset({"script", "style", "noscript", "template", "svg", "head"})

#: Elements that begin a line.
BLOCKS = frozenset(
    {"p", "div", "br", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "section", "article", "pre", "blockquote"}
)

READABLE = ("text/", "application/json", "application/xml", "application/xhtml+xml", "application/rss+xml")


def run(settings: Settings, attempt: Attempt, url: str) -> CallResult:
    """Read a page. Raises the reason to stop."""
    policy = egress.parse_policy(settings.web_fetch_allow, settings.egress_deny)
    try:
        text = event_loop.run(lambda: fetch_text(policy, url), attempt.should_stop)
    except event_loop.Stopped:
        attempt.check()
        raise
    except (EgressRefused, httpx2.InvalidURL) as error:
        return error_result(str(error))
    except (httpx2.HTTPError, httpx2.StreamError, TimeoutError) as error:
        message = f"The page cannot be read: {error or 'it took too long.'}"
        return error_result(clean_text(message))
    return CallResult(output=cut_bytes(text, settings.tool_output_bytes))


async def fetch_text(policy: EgressPolicy, url: str, resolver: Resolver = resolve) -> str:
    """Return the text of a page. Raises EgressRefused, TimeoutError and errors of httpx2."""
    with anyio.fail_after(TIMEOUT):
        async with guarded_client(policy, ByteBudget(MAX_PAGE), silence=SILENCE, resolver=resolver) as client:
            request = client.build_request("GET", url, headers={"User-Agent": "sangha", "Accept": "text/html, */*"})
            for _ in range(MAX_REDIRECTS + 1):
                response = await client.send(request)
                if response.next_request is None:
                    return _page_text(response)
                request = _followed(request, response.next_request)
    raise httpx2.TooManyRedirects(f"The page redirects more than {MAX_REDIRECTS} times.")


def _followed(request: httpx2.Request, redirect: httpx2.Request) -> httpx2.Request:
    """Return the request of a redirect. Raises EgressRefused for one that leaves https or HTTP."""
    if request.url.scheme == "https" and redirect.url.scheme != "https":
        raise EgressRefused("The page redirects from https to another scheme.")
    return redirect


def _page_text(response: httpx2.Response) -> str:
    if response.status_code >= 400:
        raise httpx2.ReadError(f"it has the HTTP status {response.status_code}.")
    content_type = response.headers.get("content-type", "text/plain").partition(";")[0].strip().lower()
    if not content_type.startswith(READABLE):
        return f"[{content_type}, {len(response.content):,} bytes, which cannot be shown as text]"
    text = clean_text(response.text)
    return html_text(text) if "html" in content_type else text


def html_text(page: str) -> str:
    """Return the title and the text of a page, a line for each block."""
    parser = _TextParser()
    parser.feed(page)
    parser.close()
    return parser.text()


class _TextParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._title: list[str] = []
        self._parts: list[str] = []
        self._skipped: list[str] = []
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        """See HTMLParser."""
        self._in_title = tag == "title"
        if tag in SKIPPED:
            self._skipped.append(tag)
        elif tag in BLOCKS:
            self._parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        """See HTMLParser."""
        self._in_title = False
        if tag in self._skipped:  # with everything inside that was not closed
            del self._skipped[self._skipped.index(tag) :]
        elif tag in BLOCKS:
            self._parts.append("\n")

    def handle_data(self, data: str) -> None:
        """See HTMLParser."""
        if self._in_title:
            self._title.append(data)
        elif not self._skipped:
            self._parts.append(data)

    def text(self) -> str:
        """Return the text so far, without superfluous white space."""
        lines = (" ".join(line.split()) for line in "".join(self._parts).split("\n"))
        title = " ".join("".join(self._title).split())
        return "\n".join(line for line in (title, *lines) if line)
