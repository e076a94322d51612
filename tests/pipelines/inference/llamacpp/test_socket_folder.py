"""llama.cpp listens at a socket of this user only, in a folder that does not outlive its process."""

import os
import socket
import stat
import tempfile
from pathlib import Path

import psutil
import pytest

from pipelines.inference.engine import Message
from pipelines.inference.llamacpp.engine import LlamaCppEngine
from pipelines.inference.llamacpp.socket_folder import MAX_PATH, NAME, PREFIX, delete_abandoned, new_socket_path


def test_the_engine_opens_no_port_and_a_private_socket(engine: LlamaCppEngine) -> None:
    path = Path(engine._loopback.path)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    listening = [
        connection for connection in psutil.Process().net_connections("inet") if connection.status == psutil.CONN_LISTEN
    ]
    assert not [connection for connection in listening if _is_llama(connection.laddr.port)]
    assert engine.count([Message("user", "hello")]) > 0


def _is_llama(port: int) -> bool:
    """Return whether GET /health on a port is answered as llama.cpp does, without a key."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        return b"llama.cpp" in connection.recv(4096)


def test_the_folder_of_a_killed_process_is_deleted(tmp_path: Path) -> None:
    # Given the folder of a process that lives, one of a process that does not, and one of something else
    folders = [tmp_path / f"{PREFIX}{name}" for name in ("alive", "dead")]
    for folder in folders:
        folder.mkdir()
    (tmp_path / "other").mkdir()
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(folders[0] / NAME))
        alive.listen()
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(folders[1] / NAME))
        # When a process starts
        delete_abandoned(tmp_path)
        # Then the second is deleted
        assert sorted(os.listdir(tmp_path)) == ["other", f"{PREFIX}alive"]


def test_a_long_temporary_folder_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 100)))
    path = new_socket_path()
    assert len(bytes(path)) <= MAX_PATH
    path.parent.rmdir()
