"""A private PgBouncer in transaction mode, in front of the tests' Postgres."""

import re
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import psycopg

from models.platform.errors import ConfigurationError
from models.platform.settings import Settings
from ops.embedded_servers import Postgres, create_private_folder

#: What it refuses by default stays refused. Clients get the connections of the server in turn, so that a statement that
#: relies on the session of an earlier one soon meets another session.
CONFIGURATION = """\
[databases]
* = host={sockets} user=postgres

[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = {own_sockets}
auth_type = any
admin_users = postgres
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 200
server_round_robin = 1
"""


class PgBouncer:
    """PgBouncer with its configuration in `folder`, and `size` connections to Postgres per database.

    Its socket is in a folder with a shorter path where that of `folder` is too long for one.
    """

    name = "pgbouncer"
    stop_signal = signal.SIGINT
    orphan_signal = signal.SIGKILL
    console_pattern: re.Pattern[str] | None = None

    def __init__(self, folder: Path, postgres: Postgres, size: int) -> None:
        self.folder = folder
        self.unprivileged_folder: Path | None = folder  # it refuses to run as root
        self._postgres = postgres
        self._sockets = Settings(data_dir=folder).socket_dir
        self._size = size

    def url(self, database: str) -> str:
        """Return the URL of one of the server's databases."""
        return f"postgresql://postgres@/{database}?host={quote(str(self._sockets))}&port=6432"

    def prepare(self) -> None:
        """Write the configuration. Raises ConfigurationError without PgBouncer."""
        self.folder.mkdir(parents=True, exist_ok=True)
        create_private_folder(self._sockets)
        text = CONFIGURATION.format(sockets=self._postgres.sockets, own_sockets=self._sockets, size=self._size)
        (self.folder / "pgbouncer.ini").write_text(text)

    def command(self) -> list[str]:
        """Return the command."""
        program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin:/usr/local/sbin")
        if program is None:
            raise ConfigurationError("PgBouncer is missing: install it, on Debian with `apt install pgbouncer`")
        return [program, str(self.folder / "pgbouncer.ini")]

    def environment(self) -> Mapping[str, str]:
        """Return no variables."""
        return {}

    def ready(self, pid: int) -> bool:
        """Return whether it accepts connections."""
        try:
            psycopg.connect(self.url("pgbouncer"), autocommit=True).close()
        except psycopg.OperationalError:
            return False
        return True

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
