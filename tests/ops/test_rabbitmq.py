"""The private RabbitMQ node: its ports, and what is said when it cannot start."""

import socket
from pathlib import Path

import pytest

from models.platform.errors import Unavailable
from ops.child_process import ChildProcess
from ops.rabbitmq import LISTENER_PORTS, RabbitMQ, free_ports


def test_free_ports_are_none_that_an_outgoing_connection_is_given():
    ports = free_ports(50)

    assert len(set(ports)) == 50
    assert all(port in LISTENER_PORTS for port in ports)


def test_a_node_whose_port_is_taken_names_the_reason(tmp_path: Path):
    node = RabbitMQ(tmp_path / "rabbitmq")
    (tmp_path / "logs").mkdir()
    child = ChildProcess(node, tmp_path, tmp_path / "logs")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", node.port))
        taken.listen()
        child.start()

        try:
            with pytest.raises(Unavailable, match="could_not_start_listener"):
                child.wait_ready(120)
        finally:
            child.stop()
            node.close()
