"""Clusters of hosts in network namespaces, which need root."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


def run(module, *arguments):
    """Run a program of this folder; returns the lines that it has printed."""
    command = [sys.executable, "-m", f"tests.bench.cluster.{module}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stdout.splitlines()


def test_a_host_that_is_cut_off_cannot_be_reached_until_it_is_reconnected(tmp_path):
    before, cut_off, reconnected, named = run("connections", str(tmp_path / "network"))

    assert before == "True True True"
    assert cut_off == "False True True"  # a name of several hosts leads to the one that can be reached
    assert reconnected == "True True True"
    assert named == "True"
    # And the machine has neither the names nor the hosts
    assert "10.77.0.1 clients" not in Path("/etc/hosts").read_text()
    assert not Path("/run/netns/one").exists()


def test_turns_are_answered_after_the_primary_of_postgres_is_cut_off():
    assert run("failover") == ["before response.completed", "after response.completed"]
