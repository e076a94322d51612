"""The gateway of the cluster: nginx, which ends TLS and passes requests to the web processes.

Its settings are those that `docs/guides/deploy-with-containers.md` recommends: events pass at once, a stream may be
silent for longer than the 15 seconds between two comments, and only requests that were not sent are tried elsewhere.
"""

import datetime
import ipaddress
import shutil
import signal
from pathlib import Path
from string import Template

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bench.cluster.network import Host
from bench.cluster.servers import NetworkedServer
from models.platform.errors import ConfigurationError

TLS_PORT = 443

#: Where the web processes listen.
WEB_PORT = 8000

CONFIGURATION = Template("""\
daemon off;
pid $folder/nginx.pid;
error_log stderr warn;
events { worker_connections 4096; }
http {
    access_log off;
    client_body_temp_path $folder/body;
    proxy_temp_path $folder/proxy;
    fastcgi_temp_path $folder/fastcgi;
    uwsgi_temp_path $folder/uwsgi;
    scgi_temp_path $folder/scgi;
    client_max_body_size 513m;
    upstream web {
        $servers
        keepalive 64;
    }
    server {
        listen $address:$port ssl;
        ssl_certificate $folder/certificate.pem;
        ssl_certificate_key $folder/key.pem;
        location / {
            proxy_pass http://web;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $$host;
            proxy_set_header X-Forwarded-For $$proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $$scheme;
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_connect_timeout 2s;
            proxy_read_timeout 1h;
            proxy_next_upstream error timeout;
            proxy_next_upstream_tries 2;
        }
    }
}
""")


class Gateway(NetworkedServer):
    """nginx on a host, with a certificate by an authority of its own in `authority`."""

    stop_signal = signal.SIGQUIT  # ends after the running requests

    def __init__(self, host: Host, webs: list[Host], folder: Path) -> None:
        super().__init__(host.name, host, TLS_PORT, folder)
        self._webs = webs

    @property
    def authority(self) -> Path:
        """The certificate of the authority."""
        return self.folder / "authority.pem"

    def prepare(self) -> None:
        """Write the certificate and the configuration."""
        super().prepare()
        if not self.authority.exists():
            write_certificate(self.host, self.folder)
        servers = "\n        ".join(f"server {web.name}:{WEB_PORT} max_fails=1 fail_timeout=1s;" for web in self._webs)
        values = {"folder": self.folder, "servers": servers, "address": self.host.address, "port": TLS_PORT}
        (self.folder / "nginx.conf").write_text(CONFIGURATION.substitute(values))

    def command(self) -> list[str]:
        """Return the command. Raises ConfigurationError without nginx."""
        nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if nginx is None:
            raise ConfigurationError("nginx is missing: on Debian, apt install nginx-light")
        return [nginx, "-c", str(self.folder / "nginx.conf"), "-p", str(self.folder), "-g", "user root;"]


def write_certificate(host: Host, folder: Path) -> None:
    """Write the certificate and the key of a host, and the certificate of the authority that has signed it."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _name("Authority of a cluster")
    certificate = (
        _certificate(_name(host.name), authority, key)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(host.name), x509.IPAddress(ipaddress.ip_address(host.address))]),
            critical=False,
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    root = (
        _certificate(authority, authority, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    (folder / "authority.pem").write_bytes(root.public_bytes(pem))
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=7))
    )
