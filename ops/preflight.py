"""Check what processes need before they start: the data folder's lock, free disk space, a free port, a database that
works with this release.
"""

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from models.platform.code_check import check_code_at_start
from models.platform.errors import ConfigurationError
from models.platform.settings import Settings, variable_name

#: Bytes. A new database takes 50 MB and its write-ahead log grows under load: with less than this it soon fails.
MIN_FREE_DISK = 500_000_000


@contextmanager
def data_folder_lock(home: Path) -> Iterator[None]:
    """Lock the data folder. Raises ConfigurationError when another `sangha up` has locked it.

    The lock ends with the process, however it exits; the pid in the file is for the error message only.
    """
    with open_lock(home) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            raise ConfigurationError(
                f"{home} is in use by another `sangha up` (pid {holder}): stop it, or choose another --data-dir"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def open_lock(home: Path) -> IO[str]:
    """Create the data folder and open its lock file. Raises ConfigurationError."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        return (home / "lock").open("a+")
    except OSError as error:
        raise ConfigurationError(f"{variable_name('data_dir')} is {home}: {error.strerror}") from None


def check_free_disk(folder: Path) -> None:
    """Raise ConfigurationError when the disk is nearly full."""
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_DISK:
        raise ConfigurationError(
            f"{folder} has {free // 1_000_000} MB free and Sangha needs {MIN_FREE_DISK // 1_000_000} MB: "
            "free some disk space, or choose another --data-dir"
        )


def check_certificate(settings: Settings) -> None:
    """Raise ConfigurationError when the web process could not use its TLS certificate."""
    from web.http.tls import certificate_files, load_context

    if files := certificate_files(settings):
        load_context(files)


def check_release(settings: Settings) -> None:
    """Raise ConfigurationError when this release is too old for the database. A database that is down passes."""
    check_code_at_start(settings.postgres_dsn)


def choose_port(settings: Settings) -> int:
    """Return the configured port, or a free one for 0.

    Raises ConfigurationError when the port is in use or the address is not one of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            return int(listener.getsockname()[1])
    except socket.gaierror as error:
        raise ConfigurationError(f"{variable_name('host')} is {settings.host!r}: {error.strerror}") from None
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror}): "
            f"choose another port with --port or {variable_name('port')}"
        ) from None
