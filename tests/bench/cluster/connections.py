"""A program that connects hosts and cuts one off: `python -m tests.bench.cluster.connections FOLDER`."""

import socket
import sys
from contextlib import closing
from pathlib import Path

from bench.cluster.namespaces import enter_private_namespaces, entered
from bench.cluster.network import Network

PORT = 7777


def listen(network: Network, name: str) -> socket.socket:
    """Listen on a host."""
    with entered(network.hosts[name].namespace):
        listener = socket.create_server((network.hosts[name].address, PORT))
    return listener


def connects(network: Network, name: str, to: str) -> bool:
    """Return whether a host can connect to a name."""
    with entered(network.hosts[name].namespace):
        try:
            socket.create_connection((to, PORT), timeout=1).close()
        except OSError:
            return False
    return True


def main() -> None:
    """Print the connections that are possible before, while and after a host is cut off."""
    enter_private_namespaces()
    network = Network(["one", "two", "three"], {"both": ["two", "three"]}, Path(sys.argv[1]))
    with closing(listen(network, "two")), closing(listen(network, "three")):
        for step in (lambda name: None, network.cut_off, network.reconnect):
            step("two")
            print(*(connects(network, "one", name) for name in ("two", "three", "both")))
    print("clients" in Path("/etc/hosts").read_text())


if __name__ == "__main__":
    main()
