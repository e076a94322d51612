"""Requests go to checked addresses only, whatever names, redirects and proxies say, and read a bounded answer."""

import gzip
import ipaddress
import ssl
from collections.abc import Sequence

import anyio
import httpcore2
import httpx2
import pytest

from models.platform.egress_rules import parse_rule
from pipelines.agents import egress
from pipelines.agents.bounded_stream import ByteBudget, ResponseTooLarge
from pipelines.agents.egress import EgressPolicy, EgressRefused, guarded_client, is_public, parse_policy
from tests.pipelines.agents.http_server import http_server, respond

MIB = 1 << 20


def policy(*allow: str, deny: Sequence[str] = ()) -> EgressPolicy:
    return parse_policy(allow, tuple(deny))


def get(rules: EgressPolicy, url: str, limit: int = MIB, resolver: egress.Resolver = egress.resolve) -> httpx2.Response:
    """Return the response to a GET."""

    async def send() -> httpx2.Response:
        async with guarded_client(rules, ByteBudget(limit), silence=5, resolver=resolver) as client:
            return await client.get(url)

    return anyio.run(send)


def resolver_of(*answers: Sequence[str]) -> tuple[egress.Resolver, list[str]]:
    """Return a resolver that answers these in turn, and the hosts that it was asked for."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return answers[len(asked) - 1]

    return resolve, asked


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200",
        "0.0.0.0", "224.0.0.1", "255.255.255.255", "192.0.0.192", "168.63.129.16", "198.18.0.1", "240.0.0.1",
        "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001::1",
    ],
)  # fmt: skip
def test_a_private_address_is_refused_where_any_public_one_is_allowed(address):
    # When / Then
    with pytest.raises(EgressRefused, match="not reachable from here") as caught:
        policy("*").check_address("mcp.example.com", 443, address)
    assert address not in str(caught.value)  # the message does not reveal internal addresses


@pytest.mark.parametrize("address", ["93.184.215.14", "1.1.1.1", "2606:4700:4700::1111"])
def test_a_public_address_is_admitted(address):
    policy("*").check_address("mcp.example.com", 443, address)

    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    ("rules", "host", "port", "address", "admitted"),
    [
        (("mcp.internal",), "mcp.internal", 80, "10.0.0.1", True),
        (("mcp.internal",), "MCP.internal.", 80, "10.0.0.1", True),
        (("mcp.internal",), "other.internal", 80, "10.0.0.1", False),
        (("mcp.internal:8080",), "mcp.internal", 80, "10.0.0.1", False),
        (("mcp.internal",), "mcp.internal", 80, "169.254.169.254", False),
        (("mcp.internal",), "mcp.internal", 80, "100.100.100.200", False),
        (("169.254.169.254",), "metadata", 80, "169.254.169.254", True),
        (("*.internal",), "a.mcp.internal", 80, "10.0.0.1", True),
        (("*.internal",), "internal", 80, "10.0.0.1", False),
        (("10.0.0.0/8",), "whatever", 80, "10.9.9.9", True),
        (("10.0.0.0/8:80",), "whatever", 81, "10.9.9.9", False),
        (("[fd00::1]:80",), "whatever", 80, "fd00::1", True),
        (("10.0.0.0/8",), "whatever", 80, "1.1.1.1", False),
        (("*:443",), "mcp.example.com", 80, "1.1.1.1", False),
    ],
)
def test_a_rule_opens_what_it_names_and_no_more(rules, host, port, address, admitted):
    try:
        policy(*rules).check_address(host, port, address)
    except EgressRefused:
        assert not admitted
    else:
        assert admitted


def test_a_denied_host_and_a_denied_network_are_refused_although_they_are_allowed():
    rules = policy("*", "mcp.internal", deny=["*.evil.example", "10.1.0.0/16"])

    with pytest.raises(EgressRefused, match="DENY names the host"):
        rules.check_url(httpx2.URL("https://www.evil.example/"))
    with pytest.raises(EgressRefused):
        rules.check_address("mcp.internal", 80, "10.1.2.3")
    rules.check_address("mcp.internal", 80, "10.2.2.3")


@pytest.mark.parametrize("text", ["a b", "http://x", "x:0", "x:99999", "", "10.0.0.0/33", "*.*", "x,y"])
def test_a_malformed_rule_is_an_error(text):
    with pytest.raises(ValueError, match="should be"):
        parse_rule(text)


@pytest.mark.parametrize("url", ["ftp://mcp.example.com/", "https://me:secret@mcp.example.com/", "file:///etc/passwd"])
def test_a_url_of_another_scheme_or_with_credentials_is_refused(url):
    with pytest.raises(EgressRefused):
        get(policy("*"), url)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"])
def test_no_spelling_of_the_loopback_address_is_reached(host):
    # Given
    requests = []
    with http_server(lambda request: (requests.append(request.path), respond(request, b"secret"))) as url:
        port = url.rpartition(":")[2]

        # When / Then
        with pytest.raises((EgressRefused, httpx2.ConnectError)):
            get(policy("*"), f"http://{host}:{port}/")
    assert not requests


def test_a_name_is_resolved_once_and_the_connection_goes_to_the_checked_address():
    # Given a name whose address changes between the check and the connection
    resolver, asked = resolver_of(["127.0.0.1"], ["169.254.169.254"])
    with http_server(lambda request: respond(request, request.headers["Host"].encode())) as url:
        port = url.rpartition(":")[2]

        # When
        response = get(policy("rebinding.test"), f"http://rebinding.test:{port}/", resolver=resolver)

    # Then
    assert asked == ["rebinding.test"]
    assert response.text == f"rebinding.test:{port}"


def test_a_name_of_which_one_address_is_private_is_refused():
    # Given
    resolver, _ = resolver_of(["93.184.215.14", "10.0.0.1"])

    # When / Then
    with pytest.raises(EgressRefused):
        get(policy("*"), "http://mixed.test/", resolver=resolver)


def test_an_address_that_does_not_answer_is_followed_by_the_next():
    # Given
    resolver, _ = resolver_of(["127.0.0.2", "127.0.0.1"])
    with http_server(lambda request: respond(request, b"here")) as url:
        port = url.rpartition(":")[2]

        # When
        response = get(policy("two.test"), f"http://two.test:{port}/", resolver=resolver)

    # Then
    assert response.text == "here"


def test_a_name_that_does_not_exist_is_a_connection_error():
    async def resolve(host: str, port: int) -> Sequence[str]:
        raise OSError("no such name")

    with pytest.raises(httpx2.ConnectError, match=r"missing\.test could not be found"):
        get(policy("*"), "http://missing.test/", resolver=resolve)


def test_proxies_of_the_environment_are_ignored(monkeypatch):
    # Given
    with (
        http_server(lambda request: respond(request, b"direct")) as url,
        http_server(lambda request: respond(request, b"by proxy")) as proxy,
    ):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy)

        # When
        response = get(policy("127.0.0.1"), url)

    # Then
    assert response.text == "direct"


def test_a_redirect_is_not_followed_unless_asked_for():
    # Given
    redirect = {"Location": "http://169.254.169.254/latest/meta-data"}
    with http_server(lambda request: respond(request, b"", 302, **redirect)) as url:
        # When
        response = get(policy("127.0.0.1"), url)

    # Then
    assert response.status_code == 302


def test_reading_ends_at_the_limit_of_a_body_of_100_mib():
    # Given
    sent = []

    def handle(request):
        request.send_response(200)
        request.send_header("Content-Length", str(100 * MIB))
        request.end_headers()
        for _ in range(100):
            request.wfile.write(bytes(MIB))
            sent.append(MIB)

    # When / Then
    with http_server(handle) as url, pytest.raises(ResponseTooLarge, match="1,048,576 bytes"):
        get(policy("127.0.0.1"), url)
    assert sum(sent) < 50 * MIB  # besides what the system's buffers hold


def test_a_body_is_not_unpacked_beyond_the_limit():
    # Given 1 MB that unpacks to 200 MiB
    bomb = gzip.compress(bytes(200 * MIB), compresslevel=1)
    packed = http_server(lambda request: respond(request, bomb, Content_Encoding="gzip"))

    # When / Then
    with packed as url, pytest.raises(ResponseTooLarge):
        get(policy("127.0.0.1"), url)


def test_a_compressed_body_in_the_limit_is_unpacked():
    with http_server(lambda request: respond(request, gzip.compress(b"hello"), Content_Encoding="gzip")) as url:
        assert get(policy("127.0.0.1"), url).text == "hello"


def test_a_body_in_an_encoding_that_is_not_bounded_is_an_error():
    packed = http_server(lambda request: respond(request, b"x", Content_Encoding="br"))

    with packed as url, pytest.raises(httpx2.DecodingError, match="not asked for"):
        get(policy("127.0.0.1"), url)


def test_all_responses_of_a_client_share_one_limit():
    # Given
    async def read_twice(url: str) -> None:
        async with guarded_client(policy("127.0.0.1"), ByteBudget(15), silence=5) as client:
            await client.get(url)
            await client.get(url)

    # When / Then
    with http_server(lambda request: respond(request, b"0123456789")) as url, pytest.raises(ResponseTooLarge):
        anyio.run(read_twice, url)


def test_tls_verifies_the_name_and_not_the_address(trusted: ssl.SSLContext, monkeypatch):
    # Given a server with a certificate for 127.0.0.1 only, under a name
    monkeypatch.setattr(egress, "ssl_context", httpx2.create_ssl_context)
    resolver, _ = resolver_of(["127.0.0.1"])
    with http_server(lambda request: respond(request, b"secure"), trusted) as url:
        port = url.rpartition(":")[2]

        # When / Then
        assert get(policy("127.0.0.1"), f"https://127.0.0.1:{port}/").text == "secure"
        with pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            get(policy("other.test"), f"https://other.test:{port}/", resolver=resolver)


def test_errors_are_those_of_httpx2():
    assert isinstance(egress.translated(httpcore2.ReadTimeout("slow")), httpx2.ReadTimeout)
    assert str(egress.translated(httpcore2.RemoteProtocolError("bad"))) == "bad"
