"""Given a hostile account, when the platform answers it wrongly, then that is a violation."""

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from unittest.mock import MagicMock

import orjson
import pytest
from click.testing import CliRunner

from bench import machine
from bench.chaos import __main__ as command
from bench.chaos.adversary import Adversary, AttackResult, adversary
from bench.chaos.attacks import ATTACKS
from bench.chaos.hostile_account import HostileAccount
from bench.chaos.report import ChaosReport
from bench.chaos.run import RunOptions
from bench.chaos.victim import Victim, losses
from bench.harness.client import Address, Client
from bench.harness.stack import running_stack
from bench.harness.waiting import wait_until

IDS = {kind: f"{kind}_1" for kind in ("response", "conversation", "memory", "job", "schedule", "api_key")}
VICTIM = Victim("secret_1", "victim@example.com", "acct_1", IDS, "token")

Answers = Callable[[int, bytes], Address]


class Server(http.server.ThreadingHTTPServer):
    """A server that many connections may wait for."""

    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, *_: object) -> None:
        """Ignore that a client has disconnected."""


@pytest.fixture
def answering() -> Iterator[Answers]:
    """Start servers on loopback that answer every request with the same status and body."""
    servers: list[Server] = []

    def start(status: int, body: bytes) -> Address:
        server = Server(("127.0.0.1", 0), handler(status, body))
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return "127.0.0.1", server.server_address[1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def handler(status: int, body: bytes) -> type[http.server.BaseHTTPRequestHandler]:
    """Return a handler that reads no body."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.close_connection = True
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_DELETE = _answer

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def hostile(address: Address, *, faults: bool = False) -> HostileAccount:
    """Return an account that attacks a server."""
    return HostileAccount([address], "token", VICTIM, faults=faults)


@pytest.mark.parametrize(
    ("status", "body", "faults", "problem"),
    [
        (404, b"{}", False, None),
        (429, b"{}", False, None),
        (503, b"{}", False, None),
        (504, b"{}", True, None),
        (504, b"late", False, "answered with 504: late"),
        (500, b"a traceback", True, "answered with 500: a traceback"),
        (200, b"it is secret_1", True, "the answer contains what belongs to another account: it is secret_1"),
    ],
)
def test_an_answer_is_judged(answering: Answers, status: int, body: bytes, faults: bool, problem: str | None):
    account = hostile(answering(status, body), faults=faults)

    with account.attacking("reading"):
        account.send("GET", "/v1/me")

    assert account.counts == {("reading", status): 1}
    assert account.problems == ([("reading", "GET /v1/me", problem)] if problem else [])


def test_an_accepted_request_that_must_be_refused_is_a_problem(answering: Answers):
    account = hostile(answering(200, b"{}"))

    with account.attacking("deleting"):
        account.refuse("DELETE", "/v1/responses/response_1")

    assert account.problems == [("deleting", "DELETE /v1/responses/response_1", "accepted with 200: {}")]


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_goes_on_when_everything_is_refused_or_nobody_listens(answering: Answers, name: str):
    refusing, absent = hostile(answering(403, b"{}")), hostile(("127.0.0.1", 9), faults=True)
    for account in (refusing, absent):
        account.wait = lambda seconds: None  # type: ignore[method-assign]
        with account.attacking(name):
            ATTACKS[name].run(account)

    assert not refusing.problems
    assert {status for _, status in refusing.counts} <= {0, 403}
    assert {status for _, status in absent.counts} <= {0}


def test_no_request_is_sent_after_the_end(answering: Answers):
    account = hostile(answering(500, b""))

    account.stop()
    with account.attacking("public-pages"):
        ATTACKS["public-pages"].run(account)

    assert not account.counts
    assert not account.problems


@pytest.mark.timeout(240)
def test_a_platform_withstands_probing_and_a_loss_of_the_victim_is_reported():
    with (
        running_stack("redis") as stack,
        stack.platform(engine="scripted", light_pools=["memory"]) as platform,
        adversary(platform.addresses, platform.settings, faults=True) as attacker,
    ):
        names = ["foreign-ids", "malformed-requests", "forged-tokens"]
        attacker.start(names)
        wait_until(lambda: attacker.finished_rounds() >= 1, timeout=120)

        assert attacker.violations() == []
        assert attacker.counts.keys() == set(names)
        assert attacker.counts["foreign-ids"]["404"] > 20

        with closing(Client(platform.address, attacker.victim.token)) as victim:
            victim.request("DELETE", attacker.victim.paths()["memory"]).read()

        assert [loss for loss in losses(attacker.victim, platform.address) if "its memory cannot be read" in loss]


def test_answers_of_several_rounds_are_added_and_reported():
    attacker = Adversary(MagicMock(), ("127.0.0.1", 9), "token", VICTIM)
    attacker.results = [AttackResult({"rare-crons": {"400": 2}}, []), AttackResult({"rare-crons": {"400": 1}}, [])]
    report = ChaosReport(machine.describe(), "redis", 1, 1, "a command", attacks=attacker.counts)

    assert "rare-crons  3x 400" in report.text()
    assert orjson.loads(orjson.dumps(report.json()))["attacks"] == {"rare-crons": {"400": 3}}


def test_attacks_are_selected_by_name():
    assert "--no-adversary" in RunOptions(1, 1, "redis", attacks=()).command
    assert RunOptions(1, 1, "redis", attacks=("rare-crons",)).command.endswith(" --attack rare-crons")
    assert "adversary" not in RunOptions(1, 1, "redis").command
    assert not RunOptions(1, 1, "redis", quiet=True).faults()


def test_an_unknown_attack_is_rejected_by_name():
    rejected = CliRunner().invoke(command.main, ["--attack", "charm"])

    assert rejected.exit_code == 2
    assert "There is no attack 'charm'" in rejected.output
