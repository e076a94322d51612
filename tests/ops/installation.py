"""A running `sangha up`, for tests of what it prints, logs and survives."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx

from bench.harness.waiting import wait_until


class Up:
    """A running `sangha up`."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self.output = home.parent / "output"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SANGHA_")}
        command = [sys.executable, "-m", "ops", "up", "--port", "0", "--data-dir", str(home)]
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, env=environment | {"SANGHA_ENGINE": "scripted"} | settings
            )

    @property
    def text(self) -> str:
        return self.output.read_text()

    @property
    def address(self) -> str:
        match = re.search(r"listening at (\S+)", self.text)
        assert match, self.text
        return match[1]

    def wait_ready(self) -> "Up":
        wait_until(lambda: "Ready after" in self.text or self.process.poll() is not None, 90)
        wait_until(lambda: "print()'" in self.text or self.process.poll() is not None)
        assert self.process.poll() is None, self.text
        return self

    def pids(self) -> dict[str, int]:
        """Read the pid of each service from its pid file, skipping a file that is being written or deleted."""
        pids = {}
        for file in (self.home / "run").glob("*.pid"):
            with suppress(FileNotFoundError, ValueError):
                pids[file.stem] = int(file.read_text())
        return pids

    def run_turn(self) -> str:
        """Create an account, run a turn and return its text."""
        address = f"me-{os.urandom(6).hex()}@example.com"
        with httpx.Client(base_url=self.address, timeout=60) as client:
            signup = client.post("/signup", json={"email": address, "password": "correct horse battery staple"})
            headers = {"Authorization": f"Bearer {signup.json()['token']}"}
            answer = client.post("/v1/responses", json={"model": "default", "input": "Hello"}, headers=headers).json()
        return str(answer["output"][0]["content"][0]["text"])

    def works(self) -> bool:
        try:
            return self.run_turn().startswith("w0 w1 ")
        except (httpx.HTTPError, KeyError, IndexError, json.JSONDecodeError):
            return False

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)
