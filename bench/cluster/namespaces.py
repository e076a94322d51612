"""Namespaces of Linux: the whole run in private ones, and each host in a network namespace of its own.

A private namespace of mounts and network hides the hosts, their names and their addresses from the machine, and
everything is gone when the run has ended, however it ends.
"""

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.platform.errors import ConfigurationError

#: From <sched.h>.
CLONE_NEWNET = 0x40000000

#: Set in a process whose namespaces are private.
PRIVATE = "SANGHA_BENCH_PRIVATE_NAMESPACES"

_libc = ctypes.CDLL(None, use_errno=True)


def enter_private_namespaces() -> None:
    """Execute this command again in private namespaces, unless it runs in them. Raises ConfigurationError."""
    if os.environ.get(PRIVATE):
        return
    if os.geteuid() != 0:
        raise ConfigurationError("network namespaces need root: run it with sudo, or in a container with CAP_SYS_ADMIN")
    unshare = ["unshare", "--net", "--mount", "--propagation", "private"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        raise ConfigurationError("this machine does not permit network namespaces: it lacks CAP_SYS_ADMIN")
    os.environ[PRIVATE] = "1"
    os.execvp(unshare[0], [*unshare, *sys.orig_argv])


def hide_names_of_machine(hosts_file: Path) -> None:
    """Let all processes of the run resolve only the names in a file. Call it in private namespaces."""
    run("mount", "--bind", str(hosts_file), "/etc/hosts")
    Path("/run/netns").mkdir(exist_ok=True)
    run("mount", "-t", "tmpfs", "none", "/run/netns")


@contextmanager
def entered(namespace: Path) -> Iterator[None]:
    """Let this thread, and the processes that it starts, use another network namespace until the end of the block."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _set_namespace(os.open(namespace, os.O_RDONLY))
        try:
            yield
        finally:
            _set_namespace(os.dup(before))
    finally:
        os.close(before)


def run(*command: str) -> None:
    """Run a program of the system. Raises ConfigurationError with the last line that it has printed."""
    try:
        subprocess.run(command, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise ConfigurationError(f"the program {command[0]} is missing: on Debian, apt install iproute2") from None
    except subprocess.CalledProcessError as error:
        raise ConfigurationError(f"{' '.join(command)}: {error.stderr.strip()}") from None


def _set_namespace(descriptor: int) -> None:
    try:
        if _libc.setns(descriptor, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(descriptor)
