"""The private folder of the socket at which llama.cpp's server listens.

A port on loopback is open to every local process, and to pages in a browser on the machine: 400 half-open requests kept
all of its threads busy, and every turn failed. A socket in a folder of mode 0700 is open to this user only.
"""

import atexit
import shutil
import socket
import tempfile
from pathlib import Path

PREFIX = "sangha-llama-"

#: The server listens at a socket if the address ends so.
NAME = "llama.sock"

#: Bytes of a socket's path that Linux and macOS allow.
MAX_PATH = 103


def new_socket_path() -> Path:
    """Create a folder that is deleted when the process ends, and return the path of a socket in it."""
    parent = Path(tempfile.gettempdir())
    if len(bytes(parent / f"{PREFIX}12345678" / NAME)) > MAX_PATH:
        parent = Path("/tmp")  # noqa: S108 - mkdtemp creates a new folder that only this user can enter
    delete_abandoned(parent)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder / NAME


def delete_abandoned(parent: Path) -> None:
    """Delete the folders of killed processes: those whose socket nobody listens at."""
    for path in parent.glob(f"{PREFIX}*/{NAME}"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            try:
                connection.connect(str(path))
            except ConnectionRefusedError:
                shutil.rmtree(path.parent, ignore_errors=True)
            except OSError:
                continue  # of another user, busy, or deleted just now
