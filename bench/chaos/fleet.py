"""A fleet of clients of several accounts that keep the platform busy with all kinds of work, and record what they see.

Everything that they send follows from the seed, except for its timing. One account has many clients with concurrent
turns, so that it fills its fairness window.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from bench.chaos.batch_clients import BatchClient
from bench.chaos.clients import (
    Canceller,
    ConversationClient,
    FleetClient,
    Lister,
    OpenAIClient,
    Poller,
    SlowStreamer,
    Streamer,
)
from bench.chaos.file_clients import FileClient
from bench.chaos.local_clients import LocalClient, LocalStreamer, ResidencyChanger
from bench.chaos.memory_clients import EmbeddingClient, Importer, Meditator, WarmUp
from bench.chaos.report_clients import ReportClient
from bench.chaos.retrying_client import Deadline, HttpRequest, RetryingClient
from bench.chaos.tool_server import ToolServer
from bench.chaos.transcripts import TOKENS, ClientTranscript
from bench.chaos.tree_clients import TreeClient
from bench.harness.client import PASSWORD, Address
from bench.harness.sse import CheckFailed
from bench.harness.webhook_receiver import WebhookReceiver

ClientClass = Callable[..., FleetClient]

#: The clients of each account.
CLIENTS: Sequence[Sequence[ClientClass]] = (
    (Streamer, Streamer, Streamer, SlowStreamer, OpenAIClient, Poller, Canceller, ConversationClient, Lister,
     ReportClient),
    (Streamer, SlowStreamer, OpenAIClient, Canceller, Poller, EmbeddingClient),
    (Importer, Meditator, Streamer),
    (Importer, Meditator, Canceller, ConversationClient),
    (TreeClient, TreeClient, TreeClient),
    (LocalStreamer, LocalStreamer, ConversationClient),
    (ResidencyChanger,),
    (BatchClient, BatchClient),
    (FileClient, FileClient),
)  # fmt: skip

#: The scopes of their API keys: an administrator's, who may change the account's residency.
SCOPES = ("read", "write", "inference", "admin")

#: The counts of the progress line.
PROGRESS = ("turns", "ended", "events", "retries", "reconnects")


class Fleet:
    """Clients on threads, from `start` to `finish`.

    tokens  the length of the script's answers
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        seed: int,
        *,
        tokens: int = TOKENS,
        clients: Sequence[Sequence[ClientClass]] = CLIENTS,
    ) -> None:
        self._addresses = addresses
        self._seed = seed
        self._tokens = tokens
        self._classes = clients
        self._deadline = Deadline()
        self._clients: list[FleetClient] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Sign up, warm up every process, and start the clients. Call it while no fault is active."""
        accounts = [sign_up(self._addresses, f"chaos-{self._seed}-{number}") for number in range(len(self._classes))]
        self._add(WarmUp, "warm-up", *accounts[0]).run()
        for number, (classes, account) in enumerate(zip(self._classes, accounts, strict=True)):
            for index, class_ in enumerate(classes):
                client = self._add(class_, f"{class_.__name__.lower()}-{number}{index}", *account)
                self._threads.append(threading.Thread(target=client.run, name=client.name, daemon=True))
        for thread in self._threads:
            thread.start()

    def begin_trees(self, tools: ToolServer) -> None:
        """Let clients run trees with these tools from now on: no process of a version without agents runs."""
        for client in self._clients:
            if isinstance(client, TreeClient):
                client.begin_trees(tools)

    def begin_batches(self) -> None:
        """Let clients create batches from now on: no process of a version without batches runs."""
        for client in self._clients:
            if isinstance(client, BatchClient):
                client.begin_batches()

    def begin_webhooks(self, receiver: WebhookReceiver) -> None:
        """Have the events of all accounts sent to a receiver from now on: no process of a version without them runs."""
        for account, token in {client.account: client.http.token for client in self._clients}.items():
            client = RetryingClient(self._addresses, token, Random(account), Deadline())
            body = {"url": f"{receiver.url}/{account}", "event_types": ["*"]}
            headers = {"Idempotency-Key": f"webhooks-{account}"}
            request = HttpRequest("POST", "/v1/webhook_endpoints", body, headers)
            created = client.send(ClientTranscript("listing", account, "", account, {}, 0.0), request)
            if created.status != 200:
                raise CheckFailed(f"POST /v1/webhook_endpoints was answered with {created.status}: {created.body!r}")
            receiver.secrets[account] = str(created.json()["signing_secret"])

    def begin_local_turns(self) -> None:
        """Let clients send turns that may not leave from now on: no process of a version without residency runs."""
        for client in self._clients:
            if isinstance(client, LocalClient):
                client.begin_local_turns()

    def begin_files(self) -> None:
        """Let clients upload files from now on: no process of a version without them runs."""
        for client in self._clients:
            if isinstance(client, FileClient):
                client.begin_files()

    def begin_reports(self) -> None:
        """Let clients request reports from now on: no process of a version without them runs."""
        for client in self._clients:
            if isinstance(client, ReportClient):
                client.begin_reports()

    @property
    def accounts(self) -> Sequence[str]:
        """The ids of the clients' accounts."""
        return sorted({client.account for client in self._clients})

    def progress(self) -> str:
        """Describe the progress in one line."""
        counts = self.counts()
        return ", ".join(f"{counts[name]} {name}" for name in PROGRESS)

    def counts(self) -> Mapping[str, int]:
        """Count requests, events and reconnects; `ended` counts turns."""
        counts: Counter[str] = Counter(dict.fromkeys(PROGRESS, 0))
        for transcript in self.transcripts():
            counts["turns" if transcript.kind == "turn" else transcript.kind] += 1
            counts["ended"] += transcript.kind == "turn" and transcript.ended is not None
            counts["events"] += len(transcript.events)
            counts["retries"] += sum(not reply.accepted for reply in transcript.replies)
            counts["reconnects"] += max(0, len(transcript.connections) - 1)
            counts["cancels"] += bool(transcript.cancels)
        return counts

    def transcripts(self) -> Sequence[ClientTranscript]:
        """Return the transcripts of all clients, so far."""
        return [transcript for client in self._clients for transcript in list(client.transcripts)]

    def finish(self, seconds: float) -> Sequence[ClientTranscript]:
        """Stop starting work, wait at most so many seconds for running work, and return all transcripts.

        Raises the error of a client, which is a fault of the fleet.
        """
        self._deadline.set(seconds)
        for thread in self._threads:
            thread.join(seconds + 60)
        for client in self._clients:
            if client.error is not None:
                raise client.error
        return self.transcripts()

    def _add(self, class_: ClientClass, name: str, account: str, token: str) -> FleetClient:
        client = class_(name, account, self._addresses, token, self._seed, self._deadline, self._tokens)
        self._clients.append(client)
        return client


def sign_up(addresses: Sequence[Address], name: str) -> tuple[str, str]:
    """Create an account; returns its id, and an API key, which does not expire."""
    client = RetryingClient(addresses, "", Random(name), Deadline())
    transcript = ClientTranscript("listing", name, "", name, {}, 0.0)
    body: dict[str, Any] = {"email": f"{name}@example.com", "password": PASSWORD}
    client.token = client.send(transcript, HttpRequest("POST", "/signup", body)).json()["token"]
    account = str(client.send(transcript, HttpRequest("GET", "/v1/account")).json()["id"])
    key = {"name": name, "scopes": SCOPES}
    for grant in ({**key, "memory": "owner"}, key):  # the previous version knows no `memory`
        created = client.send(transcript, HttpRequest("POST", "/v1/api_keys", grant))
        if created.status == 201:
            return account, str(created.json()["key"])
    raise CheckFailed(f"POST /v1/api_keys was answered with {created.status}")
