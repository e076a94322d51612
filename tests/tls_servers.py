"""Postgres, Redis and RabbitMQ with TLS, for the tests of encrypted connections.

The embedded servers are built without TLS: these are the machine's own.
"""

import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from models.platform.errors import ConfigurationError
from ops.child_process import launcher_command
from ops.embedded_servers import create_private_folder
from ops.rabbitmq import RabbitMQ, free_ports
from tests.redis_servers import ValkeyNode
from web.http.tls import CertificateFiles

#: The programs of Debian's and Ubuntu's packages, of one or more versions.
PROGRAMS = Path("/usr/lib/postgresql")

RABBITMQ = """\
listeners.ssl.default = 127.0.0.1:{port}
ssl_options.certfile = {files.cert}
ssl_options.keyfile = {files.key}
ssl_options.verify = verify_none
ssl_options.fail_if_no_peer_cert = false
"""


class TlsPostgres:
    """The machine's Postgres, which accepts connections over TLS only, on `port` of loopback."""

    name = "postgres-tls"
    stop_signal = signal.SIGINT
    orphan_signal = signal.SIGINT
    console_pattern: re.Pattern[str] | None = None

    def __init__(self, folder: Path, files: CertificateFiles) -> None:
        self.folder = folder
        self.unprivileged_folder: Path | None = folder
        self.files = files
        (self.port,) = free_ports(1)

    def prepare(self) -> None:
        """Create the database cluster, with copies of the certificate and the key that its user may read."""
        create_private_folder(self.folder)
        command = [str(postgres_program("initdb")), "-D", str(self.folder), "--auth=trust", "--username=postgres"]
        wrapped = launcher_command([*command, "--no-sync"], signal.SIGKILL, self.folder)
        subprocess.run(wrapped, check=True, capture_output=True)
        for source, name in zip(self.files, ("server.crt", "server.key"), strict=True):
            (self.folder / name).write_bytes(source.read_bytes())
            (self.folder / name).chmod(0o600)
        (self.folder / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 trust\n")

    def command(self) -> list[str]:
        """Return the command."""
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "ssl": "on", "unix_socket_directories": ""}
        options = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        return [str(postgres_program("postgres")), "-D", str(self.folder), *options]

    def environment(self) -> Mapping[str, str]:
        """Return UTC and the C locale."""
        return {"TZ": "UTC", "LC_ALL": "C"}

    def ready(self, pid: int) -> bool:
        """Return whether the server accepts connections."""
        command = [str(postgres_program("pg_isready")), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


class TlsRedis(ValkeyNode):
    """The machine's Redis with TLS on `tls_port`."""

    def __init__(self, folder: Path, files: CertificateFiles) -> None:
        port, self.tls_port = free_ports(2)
        tls = ["--tls-port", str(self.tls_port), "--tls-auth-clients", "no"]
        super().__init__(folder, port, [*tls, "--tls-cert-file", str(files.cert), "--tls-key-file", str(files.key)])

    def command(self) -> list[str]:
        """Return the command, with the machine's program instead of the embedded one."""
        program = shutil.which("redis-server")
        if program is None:
            raise ConfigurationError("Redis with TLS is missing: install it, on Debian with `apt install redis-server`")
        return [program, *super().command()[1:]]


class TlsRabbitMQ(RabbitMQ):
    """A RabbitMQ with TLS on `tls_port`."""

    def __init__(self, folder: Path, files: CertificateFiles) -> None:
        super().__init__(folder)
        self.files = files
        (self.tls_port,) = free_ports(1)

    def prepare(self) -> None:
        """Write the configuration."""
        super().prepare()
        with (self.folder / "rabbitmq.conf").open("a") as file:
            file.write(RABBITMQ.format(port=self.tls_port, files=self.files))

    def read_files_again(self) -> None:
        """Have the next connection get the certificate that the file has now."""
        self.rabbitmqctl("eval", "ssl:clear_pem_cache().")


def postgres_program(name: str) -> Path:
    """Return a program of the newest Postgres of this machine. Raises ConfigurationError."""
    found = sorted(PROGRAMS.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    path = str(found[-1]) if found else shutil.which(name)
    if path is None:
        raise ConfigurationError("Postgres with TLS is missing: install it, on Debian with `apt install postgresql`")
    return Path(path)
