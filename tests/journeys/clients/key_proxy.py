"""A proxy that adds an API key to each request, for clients that cannot send one."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

#: Bytes read at a time, and of the head of a request.
CHUNK, MAX_HEAD = 65_536, 65_536


@contextmanager
def key_proxy(port: int, key: str) -> Iterator[int]:
    """Run a proxy of a port of this machine; yields its own port. A connection carries one request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, port, key), daemon=True).start()
        yield listener.getsockname()[1]
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, port: int, key: str) -> None:
    with suppress(OSError):  # the listener was closed
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_serve, args=(client, port, key), daemon=True).start()


def _serve(client: socket.socket, port: int, key: str) -> None:
    with closing(client), suppress(OSError), socket.create_connection(("127.0.0.1", port)) as server:
        server.sendall(_with_key(_read_head(client), key))
        threading.Thread(target=_pipe, args=(client, server), daemon=True).start()
        _pipe(server, client)


def _read_head(client: socket.socket) -> bytes:
    """Read the head of a request, and what of its body has arrived with it."""
    data = b""
    while b"\r\n\r\n" not in data and len(data) < MAX_HEAD:
        if not (chunk := client.recv(CHUNK)):
            break
        data += chunk
    return data


def _with_key(request: bytes, key: str) -> bytes:
    head, separator, body = request.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith((b"connection:", b"authorization:"))]
    added = [b"Connection: close", b"Authorization: Bearer " + key.encode()]
    return b"\r\n".join([*lines, *added]) + separator + body


def _pipe(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(CHUNK):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)
