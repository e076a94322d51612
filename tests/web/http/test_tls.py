"""TLS of the web process: wrong files, renewals, and the header of Strict Transport Security."""

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from models.platform.errors import ConfigurationError
from models.platform.settings import Settings, load_settings
from ops.doctor.certificate import certificate
from ops.doctor.finding import run_check
from tests.certificates import Authority
from web.http.strict_transport import StrictTransportMiddleware, strict_host
from web.http.tls import CertificateFiles, ServerTls, load_context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def mismatched(authority: Authority) -> CertificateFiles:
    return CertificateFiles(authority.issue("a.test").cert, authority.issue("b.test").key)


def without_key(authority: Authority) -> CertificateFiles:
    files = authority.issue("a.test")
    files.key.write_text("no key")
    return files


FAULTS = [
    (lambda authority: authority.issue("a.test", days=-1), "SANGHA_TLS_CERT is .*: it expired on 20"),
    (lambda authority: authority.issue("a.test", days=90), "SANGHA_TLS_CERT is .*: it is not valid before 20"),
    (mismatched, "SANGHA_TLS_KEY is .*: it is not the key of the certificate in "),
    (without_key, "SANGHA_TLS_KEY is .*: it should have a private key in PEM format"),
    (lambda authority: CertificateFiles(Path("/no/cert"), Path("/no/key")), "SANGHA_TLS_CERT is .*: No such file"),
]


@pytest.mark.parametrize(("make_files", "message"), FAULTS)
def test_wrong_files_are_reported_in_one_line(
    authority: Authority, make_files: Callable[[Authority], CertificateFiles], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message) as error:
        load_context(make_files(authority))
    assert "\n" not in str(error.value)


def test_one_of_two_settings_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANGHA_TLS_CERT", "/cert.pem")
    monkeypatch.delenv("SANGHA_TLS_KEY", raising=False)
    with pytest.raises(ConfigurationError, match=r"^SANGHA_TLS_KEY is unset: SANGHA_TLS_CERT needs it$"):
        load_settings()


class Handshakes:
    """A server that only shakes hands, on `port`."""

    def __init__(self, tls: ServerTls) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.tls = tls
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:  # closed
                return
            with connection, suppress(OSError), self.tls.context.wrap_socket(connection, server_side=True) as encrypted:
                encrypted.recv(1)

    def names(self, authority: Authority) -> set[str]:
        """Return the names of the certificate that a client without a server name gets."""
        context = ssl.create_default_context(cafile=str(authority.file))
        context.check_hostname = False
        with socket.create_connection(("127.0.0.1", self.port)) as plain, context.wrap_socket(plain) as encrypted:
            presented = encrypted.getpeercert() or {}
        return {str(name) for _, name in presented["subjectAltName"]}  # type: ignore[misc]


@pytest.fixture
def handshakes(authority: Authority) -> Iterator[Handshakes]:
    server = Handshakes(ServerTls(authority.issue("old.test")))
    yield server
    server.listener.shutdown(socket.SHUT_RDWR)
    server.listener.close()
    server.thread.join()


def test_new_connections_get_the_renewed_certificate(
    authority: Authority, handshakes: Handshakes, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a server with a certificate
    files = authority.issue("old.test")
    assert handshakes.names(authority) == {"old.test"}
    # When only the certificate has been replaced
    renewed = authority.issue("new.test")
    files.cert.write_bytes(renewed.cert.read_bytes())
    handshakes.tls.look()
    # Then the earlier one is used, and a line says why
    assert handshakes.names(authority) == {"old.test"}
    assert "Keeping the earlier TLS certificate: SANGHA_TLS_KEY is" in caplog.text
    # When the key follows
    files.key.write_bytes(renewed.key.read_bytes())
    caplog.set_level(logging.INFO)
    handshakes.tls.look()
    # Then new connections get the new one
    assert handshakes.names(authority) == {"new.test"}
    assert "Using the TLS certificate that expires on 20" in caplog.text


@pytest.mark.parametrize(("days", "verdict"), [(30, "ok"), (7, "warn"), (-1, "FAIL")])
def test_doctor_shows_when_the_certificate_expires(authority: Authority, days: float, verdict: str) -> None:
    files = authority.issue("a.test", days=days)
    finding = run_check(certificate, Settings(tls_cert=files.cert, tls_key=files.key))
    assert finding.verdict == verdict
    assert ("expired on 20" if days < 0 else "expires on 20") in finding.detail


@pytest.mark.parametrize(
    ("scheme", "host", "has_header"),
    [("https", b"ai.test:8443", True), ("http", b"ai.test", False), ("https", b"localhost:8000", False)],
)
def test_browsers_are_kept_on_tls_for_the_public_host_only(scheme: str, host: bytes, has_header: bool) -> None:
    sent: list[dict[str, list[tuple[bytes, bytes]]]] = []

    async def app(scope: object, receive: object, send: Callable[[object], object]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[misc]

    async def send(message: dict[str, list[tuple[bytes, bytes]]]) -> None:
        sent.append(message)

    middleware = StrictTransportMiddleware(app, "ai.test")  # type: ignore[arg-type]
    scope = {"type": "http", "scheme": scheme, "headers": [(b"host", host)]}
    asyncio.run(middleware(scope, None, send))  # type: ignore[arg-type]
    assert bool(sent[0]["headers"]) is has_header


def test_strict_transport_needs_a_certificate_and_a_public_url(authority: Authority) -> None:
    files = authority.issue("ai.test")
    url = "https://ai.test"
    assert strict_host(Settings(tls_cert=files.cert, tls_key=files.key, public_url=url)) == "ai.test"
    assert strict_host(Settings(public_url=url)) is None
    assert strict_host(Settings(tls_cert=files.cert, tls_key=files.key)) is None
