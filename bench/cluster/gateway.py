"""The gateway of the cluster: nginx, which ends TLS and passes requests to the web processes.

Events pass at once, and a stream may be silent for longer than the 15 seconds between two comments. Unlike
`deploy/nginx.conf`, it tries a request elsewhere if a web process cannot be reached, so that clients keep working while
a host is lost.
"""

import shutil
import signal
from pathlib import Path
from string import Template

import trustme

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
    authority = trustme.CA()
    issued = authority.issue_cert(host.name, host.address)
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    issued.cert_chain_pems[0].write_to_path(str(folder / "certificate.pem"))
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
