"""The hosts of a cluster, and the network between them.

Each host has a network namespace with one interface, whose other end is a port of a bridge. To cut a host off, its port
is taken off the bridge: like a pulled cable, that closes no connection and answers nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from bench.cluster.namespaces import hide_names_of_machine, run

#: The first bytes of all addresses, and the length of the prefix.
NETWORK, PREFIX = "10.77.0", 24

#: The host of the clients and the checks: the namespace in which the run itself is.
CLIENTS = "clients"

BRIDGE = "sangha"


@dataclass(frozen=True, slots=True)
class Host:
    """A host: its name, its address, and the name of its port of the bridge."""

    name: str
    address: str
    port: str

    @property
    def namespace(self) -> Path:
        """The file of its network namespace."""
        return Path("/run/netns") / self.name


class Network:
    """The hosts by name. Create it in private namespaces."""

    def __init__(self, names: Sequence[str], services: Mapping[str, Sequence[str]], folder: Path) -> None:
        """Create the hosts.

        names     of the hosts
        services  names that stand for several hosts: clients try one address after the other
        folder    where the file with all names is
        """
        numbers = count(10)
        self.hosts = {name: Host(name, f"{NETWORK}.{number}", f"port{number}") for name, number in zip(names, numbers)}  # noqa: B905 - endless numbers
        self.clients = Host(CLIENTS, f"{NETWORK}.1", BRIDGE)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hosts").write_text(self._names(services))
        hide_names_of_machine(folder / "hosts")
        self._create_bridge()
        for host in self.hosts.values():
            self._create_host(host)

    def cut_off(self, name: str) -> None:
        """Let no packet reach or leave a host."""
        run("ip", "link", "set", self.hosts[name].port, "nomaster")

    def reconnect(self, name: str) -> None:
        """Connect a host that was cut off."""
        run("ip", "link", "set", self.hosts[name].port, "master", BRIDGE)

    def _names(self, services: Mapping[str, Sequence[str]]) -> str:
        hosts = [self.clients, *self.hosts.values()]
        lines = ["127.0.0.1 localhost", *(f"{host.address} {host.name}" for host in hosts)]
        lines += [f"{self.hosts[each].address} {service}" for service, names in services.items() for each in names]
        return "\n".join([*lines, ""])

    def _create_bridge(self) -> None:
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "address", "add", f"{self.clients.address}/{PREFIX}", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")

    def _create_host(self, host: Host) -> None:
        run("ip", "netns", "add", host.name)
        run("ip", "link", "add", host.port, "type", "veth", "peer", "name", "eth0", "netns", host.name)
        run("ip", "link", "set", host.port, "master", BRIDGE, "up")
        for command in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{host.address}/{PREFIX}", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
        ):
            run("ip", "-n", host.name, *command)
