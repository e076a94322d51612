"""What must hold before anything is started: one data folder, one `up`, some disk, a free port."""

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from models.platform.errors import ConfigurationError
from models.platform.settings import Settings, variable

#: A fresh database takes 50 MB and its write-ahead log grows under load: with less than this nothing works for long.
MIN_FREE_DISK = 500_000_000


@contextmanager
def data_folder_lock(home: Path) -> Iterator[None]:
    """Hold the data folder. Raises ConfigurationError when another `sangha up` does.

    The lock goes with the process, however it dies; the pid in the file is only for the message.
    """
    with open_lock(home) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            raise ConfigurationError(
                f"{home} is in use by another `sangha up` (pid {holder}): stop that one, or choose another --data-dir"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def open_lock(home: Path) -> IO[str]:
    """The lock file, in a data folder that now exists."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        return (home / "lock").open("a+")
    except OSError as error:
        raise ConfigurationError(f"{variable('data_dir')} is {home}: {error.strerror}") from None


def check_free_disk(folder: Path) -> None:
    """Raises ConfigurationError when too little is free."""
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_DISK:
        raise ConfigurationError(
            f"{folder} has {free // 1_000_000} MB free and Sangha needs {MIN_FREE_DISK // 1_000_000} MB: "
            "make room, or choose another --data-dir"
        )


def choose_port(settings: Settings) -> int:
    """The port to listen on: the one that was asked for, or for 0 any free one.

    Raises ConfigurationError when it is taken or the address is not this machine's.
    """
    where = f"{settings.host}:{settings.port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            return int(listener.getsockname()[1])
    except socket.gaierror as error:
        raise ConfigurationError(f"{variable('host')} is {settings.host!r}: {error.strerror}") from None
    except OSError as error:
        raise ConfigurationError(
            f"port {where} can't be used ({error.strerror}): choose another with --port N or {variable('port')}"
        ) from None
