"""Check the URL of a webhook endpoint before it is stored. Each connection to it is checked again."""

import ipaddress
import socket
from contextlib import suppress

import httpx2

from models.platform.errors import InvalidRequest
from models.platform.settings import Settings
from pipelines.agents.egress import EgressPolicy, EgressRefused, default_port, normalized_host, policy_of


def check_url(settings: Settings, url: str) -> None:
    """Raise InvalidRequest for a URL that no webhook may be sent to.

    No name is looked up, so a host with an internal address is refused when an event is sent. Without TLS anybody on
    the way could read events, so `http://` is for hosts that the operator has named.
    """
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise InvalidRequest(f"The URL is invalid: {error}", param="url", code="invalid_url") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidRequest("The URL should begin with https:// and name a host.", param="url", code="invalid_url")
    try:
        _check_host(policy_of(settings), parsed)
    except EgressRefused as error:
        raise InvalidRequest(str(error), param="url", code="url_refused") from None


def _check_host(policy: EgressPolicy, url: httpx2.URL) -> None:
    policy.check_url(url)
    host, port = normalized_host(url.host), url.port or default_port(url)
    address = _address(host)
    if address is not None:
        policy.check_address(host, port, address)
    if url.scheme == "http" and not policy.names(host, port, address):
        message = "The URL should begin with https://. SANGHA_EGRESS_ALLOW names the hosts that are reached by http://."
        raise InvalidRequest(message, param="url", code="https_required")


def _address(host: str) -> str | None:
    """Return the address that a host is written as, or that every machine gives this name; None for other names.

    Look-ups read `2130706433` and `0x7f.1` as addresses, too.
    """
    if host == "localhost" or host.endswith(".localhost"):
        return "127.0.0.1"
    with suppress(ValueError):
        return str(ipaddress.ip_address(host))
    with suppress(OSError, ValueError):
        return socket.inet_ntoa(socket.inet_aton(host))
    return None
