"""The fleet: clients of several accounts that keep the platform busy with all it does, and remember what they heard.

Everything that they do follows from the seed, but for when the platform answers. One account has many clients that want
turns at the same time, so that it fills its fairness window; the others stand beside it.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from bench.chaos.clients import Canceller, Client, Lister, OpenAIClient, Poller, Streamer, Talker
from bench.chaos.door import Doors, Patience
from bench.chaos.rememberers import Embedder, Importer, Thinker, Warmer
from bench.chaos.transcripts import TOKENS, Transcript
from bench.client import Address

#: Who belongs to which account.
CREW: Sequence[Sequence[Callable[..., Client]]] = (
    (Streamer, Streamer, Streamer, Streamer, OpenAIClient, Poller, Canceller, Talker, Lister),
    (Streamer, OpenAIClient, Canceller, Poller, Embedder),
    (Importer, Thinker, Streamer),
    (Importer, Thinker, Canceller, Talker),
)

#: What a line about the fleet tells.
TOLD = ("turns", "ended", "events", "tries again", "reconnects")

PASSWORD = "correct horse battery staple"


class Fleet:
    """Clients on threads, from `start` to `finish`.

    tokens  how long the script's answers are
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        seed: int,
        *,
        tokens: int = TOKENS,
        crew: Sequence[Sequence[Callable[..., Client]]] = CREW,
    ) -> None:
        self._addresses = addresses
        self._seed = seed
        self._tokens = tokens
        self._crew = crew
        self._patience = Patience()
        self._clients: list[Client] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Sign up, have every process warmed up, and begin. To be called while all is well."""
        accounts = [sign_up(self._addresses, f"chaos-{self._seed}-{number}") for number in range(len(self._crew))]
        self._join(Warmer, "warmer", *accounts[0]).run()
        for number, (makers, known) in enumerate(zip(self._crew, accounts, strict=True)):
            for place, make in enumerate(makers):
                client = self._join(make, f"{make.__name__.lower()}-{number}{place}", *known)
                self._threads.append(threading.Thread(target=client.run, name=client.name, daemon=True))
        for thread in self._threads:
            thread.start()

    def _join(self, make: Callable[..., Client], name: str, account: str, token: str) -> Client:
        client = make(name, account, self._addresses, token, self._seed, self._patience, self._tokens)
        self._clients.append(client)
        return client

    def say(self) -> str:
        """One line about how far they are."""
        told = self.counts()
        return ", ".join(f"{told[name]} {name}" for name in TOLD)

    def counts(self) -> Mapping[str, int]:
        """How much was asked for and heard; `ended` are those of the turns that have."""
        counts: Counter[str] = Counter(dict.fromkeys(TOLD, 0))
        for transcript in self.transcripts():
            counts["turns" if transcript.kind == "turn" else transcript.kind] += 1
            counts["ended"] += transcript.kind == "turn" and transcript.ended is not None
            counts["events"] += len(transcript.events)
            counts["tries again"] += sum(not answer.accepted for answer in transcript.answers)
            counts["reconnects"] += max(0, len(transcript.connections) - 1)
            counts["cancels"] += bool(transcript.cancels)
        return counts

    def transcripts(self) -> Sequence[Transcript]:
        """What the clients know, so far."""
        return [transcript for client in self._clients for transcript in list(client.transcripts)]

    def finish(self, patience: float) -> Sequence[Transcript]:
        """Begin nothing new, follow everything to its end for so many seconds, and tell what was heard.

        Raises what broke a client, which is the fleet's own fault.
        """
        self._patience.end(patience)
        for thread in self._threads:
            thread.join(patience + 60)
        for client in self._clients:
            if client.broken is not None:
                raise client.broken
        return self.transcripts()


def sign_up(addresses: Sequence[Address], name: str) -> tuple[str, str]:
    """A new account's id, and a key that doesn't run out."""
    doors = Doors(addresses, "", Random(name), Patience())
    known = Transcript("listing", name, "", name, {}, 0.0)
    entry: dict[str, Any] = {"email": f"{name}@example.com", "password": PASSWORD}
    doors.token = doors.patiently(known, "POST", "/signup", entry).json()["token"]
    account = str(doors.patiently(known, "GET", "/v1/account").json()["id"])
    made = doors.patiently(known, "POST", "/v1/api_keys", {"name": name}, {"Idempotency-Key": name})
    return account, str(made.json()["key"])
