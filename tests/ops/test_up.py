"""`sangha up` as a person meets it: a first call, parts killed one by one, Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from bench.harness.waiting import wait_until
from tests.ops.scripts import gone

pytestmark = pytest.mark.timeout(180)

PARTS = {"postgres", "valkey", "worker-inference", "worker-light", "web", "scheduler"}


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
        found = re.search(r"listening at (\S+)", self.text)
        assert found, self.text
        return found[1]

    def wait_ready(self) -> "Up":
        wait_until(lambda: "Ready after" in self.text or self.process.poll() is not None, 90)
        wait_until(lambda: "print()'" in self.text or self.process.poll() is not None)
        assert self.process.poll() is None, self.text
        return self

    def pids(self) -> dict[str, int]:
        """The pid of each part, by its pid file; one that is being written doesn't count."""
        texts = {file.stem: file.read_text().strip() for file in (self.home / "run").glob("*.pid")}
        return {name: int(text) for name, text in texts.items() if text}

    def ask(self) -> str:
        """What a new account's turn is answered with."""
        address = f"me-{os.urandom(6).hex()}@example.com"
        with httpx.Client(base_url=self.address, timeout=60) as client:
            signup = client.post("/signup", json={"email": address, "password": "correct horse battery staple"})
            headers = {"Authorization": f"Bearer {signup.json()['token']}"}
            answer = client.post("/v1/responses", json={"model": "default", "input": "Hello"}, headers=headers).json()
        return str(answer["output"][0]["content"][0]["text"])

    def answers(self) -> bool:
        try:
            return self.ask().startswith("w0 w1 ")
        except (httpx.HTTPError, KeyError, IndexError, json.JSONDecodeError):
            return False

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    up = Up(tmp_path / "data").wait_ready()
    yield up
    if up.process.poll() is None:
        up.stop()


def test_the_pasted_first_call_works_as_often_as_it_is_pasted(up: Up) -> None:
    # Given the text that `up` prints
    text = up.text
    pasted = text[text.index("TOKEN=$(") :].replace("The same with the OpenAI client, after the lines above:", "")
    for _ in range(2):
        # When it is pasted into a shell
        shell = subprocess.run(["sh"], input=pasted, capture_output=True, text=True, timeout=60, check=False)
        # Then both clients stream the answer
        assert "event: response.completed" in shell.stdout, shell.stderr
        assert shell.stdout.rstrip().endswith("w18 w19"), shell.stderr


def test_every_part_that_is_killed_is_repaired(up: Up) -> None:
    assert up.pids().keys() == PARTS
    for name in sorted(PARTS):
        # Given that everything works
        before = up.pids()
        # When a part is killed
        os.kill(before[name], signal.SIGKILL)
        # Then a new one takes its place, and a turn is answered
        wait_until(lambda before=before, name=name: up.pids().get(name, before[name]) != before[name])
        wait_until(up.answers)
        assert f"{name} exited (killed by SIGKILL): restarting" in up.text
    assert up.pids().keys() == PARTS


def test_ctrl_c_leaves_no_process_and_the_next_start_has_the_data(tmp_path: Path) -> None:
    # Given a running installation with an account
    first = Up(tmp_path / "data").wait_ready()
    mine = {"email": "me@example.com", "password": "correct horse battery staple"}
    assert httpx.post(f"{first.address}/signup", json=mine).status_code == 201
    started = psutil.Process(first.process.pid).children(recursive=True)
    # When Ctrl-C comes
    code = first.stop()
    # Then it ends in good order and nothing of it is left
    assert code == 0, first.text
    assert all(gone(process.pid) for process in started)
    assert not list((tmp_path / "data" / "run").glob("*"))
    # And the next one knows the account
    second = Up(tmp_path / "data").wait_ready()
    try:
        assert httpx.post(f"{second.address}/login", json=mine).status_code == 200
    finally:
        second.stop()


def test_killed_itself_it_takes_everything_along_and_starts_again(tmp_path: Path) -> None:
    # Given a running installation
    first = Up(tmp_path / "data").wait_ready()
    started = psutil.Process(first.process.pid).children(recursive=True)
    # When the supervisor is killed
    first.process.kill()
    first.process.wait()
    # Then every part ends
    wait_until(lambda: all(gone(process.pid) for process in started))
    # And the next one works
    second = Up(tmp_path / "data").wait_ready()
    try:
        assert second.answers()
    finally:
        second.stop()


def test_a_wrong_model_ends_up_with_one_line_that_names_it(tmp_path: Path) -> None:
    # Given a model that doesn't exist, when it starts
    up = Up(tmp_path / "data", SANGHA_ENGINE="llamacpp", SANGHA_MODEL="/nowhere/model.gguf")
    # Then it ends with the setting's name, and leaves nothing
    assert up.process.wait(60) == 2
    [line] = [line for line in up.text.splitlines() if line.startswith("sangha: ")]
    assert "SANGHA_MODEL is '/nowhere/model.gguf'" in line
    assert not list((tmp_path / "data" / "run").glob("*"))
