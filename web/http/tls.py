"""TLS of the web process: its certificate, which is read again when the files change.

A renewal writes two files, one after the other. So both are checked together before new connections get them, and the
earlier certificate stays in use until they match.
"""

import logging
import ssl
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from models.platform.errors import ConfigurationError
from models.platform.settings import Settings, variable_name

log = logging.getLogger(__name__)

#: Seconds between two looks at the files.
INTERVAL = 5.0

#: Seconds that a client may take for the TLS handshake, instead of 60: until its end a connection is not counted.
HANDSHAKE_SECONDS = 10.0


class CertificateFiles(NamedTuple):
    """The certificate with its chain, and its private key, both PEM."""

    cert: Path
    key: Path


class TlsLoop(uvloop.Loop):
    """uvloop's event loop, with a time limit for TLS handshakes that uvicorn has no option for."""

    async def create_server(self, *arguments: Any, **options: Any) -> Any:
        """Create a server."""
        return await super().create_server(*arguments, **options, ssl_handshake_timeout=HANDSHAKE_SECONDS)


class ServerTls:
    """The TLS context of a web process. New connections get the certificate that its files have."""

    def __init__(self, files: CertificateFiles) -> None:
        self._files = files
        self._read = fingerprint(files)
        self._current = self.context = load_context(files)
        # OpenSSL calls it for every handshake, also without a server name.
        self.context.sni_callback = self._use_current

    def start(self) -> "ServerTls":
        """Start a thread that looks at the files."""
        threading.Thread(target=self._run, name="certificate", daemon=True).start()
        return self

    def look(self) -> None:
        """Read the files again if they have changed. While they are wrong, the earlier certificate stays in use."""
        found = fingerprint(self._files)
        if found == self._read:
            return
        self._read = found
        try:
            self._current = load_context(self._files)
        except ConfigurationError as error:
            log.error("Keeping the earlier TLS certificate: %s", error)
        else:
            log.info("Using the TLS certificate that expires on %s", f"{expiry(self._files):%Y-%m-%d}")

    def _use_current(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, used: ssl.SSLContext) -> None:
        if used is not self._current:
            connection.context = self._current

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(INTERVAL):
            self.look()


def certificate_files(settings: Settings) -> CertificateFiles | None:
    """Return the files that the settings name; None: the web process speaks plain HTTP."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return CertificateFiles(settings.tls_cert.expanduser(), settings.tls_key.expanduser())


def load_context(files: CertificateFiles) -> ssl.SSLContext:
    """Read and check the files. Raises ConfigurationError with one line that names the setting."""
    certificate = _certificates(files.cert)[0]
    _check_time(files.cert, certificate)
    _check_key(files, certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(files.cert, files.key)
    except (OSError, ssl.SSLError) as error:  # they were replaced meanwhile, or OpenSSL refuses the kind of key
        raise _fault("tls_cert", files.cert, f"cannot be used ({error.strerror or error})") from None
    return context


def expiry(files: CertificateFiles) -> datetime:
    """Return when the certificate expires. Raises ConfigurationError."""
    return _certificates(files.cert)[0].not_valid_after_utc


def fingerprint(files: CertificateFiles) -> Sequence[tuple[int, ...] | None]:
    """Return what changes with the files, also if they are links that lead elsewhere, as on Kubernetes."""
    return [_status(file) for file in files]


def _status(file: Path) -> tuple[int, ...] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _certificates(file: Path) -> Sequence[x509.Certificate]:
    """Return the certificate and its chain."""
    try:
        return x509.load_pem_x509_certificates(_content("tls_cert", file))
    except ValueError:
        raise _fault("tls_cert", file, "should have a certificate in PEM format") from None


def _check_time(file: Path, certificate: x509.Certificate) -> None:
    now, end, start = datetime.now(UTC), certificate.not_valid_after_utc, certificate.not_valid_before_utc
    if end <= now:
        raise _fault("tls_cert", file, f"expired on {end:%Y-%m-%d %H:%M} UTC")
    if start > now:
        raise _fault("tls_cert", file, f"is not valid before {start:%Y-%m-%d %H:%M} UTC")


def _check_key(files: CertificateFiles, certificate: x509.Certificate) -> None:
    try:
        key = load_pem_private_key(_content("tls_key", files.key), password=None)
    except TypeError:
        raise _fault("tls_key", files.key, "should be a key without a password") from None
    except Exception:  # noqa: BLE001 - ValueError, UnsupportedAlgorithm and errors of its parser
        raise _fault("tls_key", files.key, "should have a private key in PEM format") from None
    if key.public_key() != certificate.public_key():
        raise _fault("tls_key", files.key, f"is not the key of the certificate in {files.cert}")


def _content(field: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise _fault(field, file, str(error.strerror)) from None


def _fault(field: str, file: Path, fault: str) -> ConfigurationError:
    return ConfigurationError(f"{variable_name(field)} is {file}: {fault if fault[0].isupper() else f'it {fault}'}")
