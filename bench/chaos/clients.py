"""The clients of a fleet: what each kind of them asks for, again and again, until the fleet ends.

Whatever a client does follows from its own seeded chance: the same seed asks for the same things. What comes of it
stands in its transcripts.
"""

import time
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from bench.chaos.door import Doors, OutOfPatience, Patience
from bench.chaos.listening import Listener, Official, OnHeard, replayed_from, stay, stream_path
from bench.chaos.transcripts import Transcript
from bench.client import Address
from bench.stack import FORGETFUL

#: Seconds between two polls of one piece of work, and on average between two pieces of work.
POLL, REST = 0.25, 0.3

#: How many turns are to be remembered (the others leave the memory pools alone), and how many are cut short.
REMEMBERED, CUT = 0.15, 0.4

#: How many ended streams are asked for again, and how many turns are asked for once more under their key.
REPLAYED, DOUBTED = 0.3, 0.2

#: The statuses of a response, and the states of a job, after which nothing changes.
ENDED = frozenset({"completed", "incomplete", "failed", "cancelled", "dead"})


class Client:
    """One client of an account, on the thread that calls `run`."""

    def __init__(
        self,
        name: str,
        account: str,
        addresses: Sequence[Address],
        token: str,
        seed: int,
        patience: Patience,
        tokens: int,
    ) -> None:
        self.name = name
        self.account = account
        self.transcripts: list[Transcript] = []
        self.broken: BaseException | None = None
        self.rng = Random(f"{seed} {name}")
        self.seed = seed
        self.tokens = tokens
        self.patience = patience
        self.doors = Doors(addresses, token, self.rng, patience)
        self.listener = Listener(self.doors, self.rng)

    def run(self) -> None:
        """One piece of work after the other, until the fleet ends and the last one has."""
        try:
            while not self.patience.closing:
                self.work()
                self.patience.idle(self.rng.expovariate(1 / REST))
        except OutOfPatience:
            return
        except BaseException as error:
            self.broken = error
            raise

    def work(self) -> None:
        """One piece of work, to its end."""
        raise NotImplementedError

    def begin(self, kind: Any, asked: Mapping[str, Any], **known: Any) -> Transcript:
        """A transcript of its own for a new piece of work."""
        key = f"{self.seed}-{self.name}-{len(self.transcripts)}"
        transcript = Transcript(kind, self.name, self.account, key, asked, time.monotonic(), **known)
        self.transcripts.append(transcript)
        return transcript

    def turn(self, *, length: int | None = None, **options: Any) -> Transcript:
        """A new turn: as long as the script, or cut short."""
        key = f"{self.seed}-{self.name}-{len(self.transcripts)}"
        drawn = self.rng.randrange(1, self.tokens) if self.rng.random() < CUT else None
        forgetful = {} if self.rng.random() < REMEMBERED else FORGETFUL
        asked = {"input": f"Tell me about {key}.", "metadata": {"chaos": key}, **forgetful, **options}
        cut = length or drawn
        if cut is not None:
            asked["max_output_tokens"] = cut
        return self.begin("turn", asked, length=cut or self.tokens)

    def create(self, transcript: Transcript, path: str, **how: Any) -> Mapping[str, Any]:
        """Ask for a piece of work that is answered with an object, and note its ids. Raises OutOfPatience."""
        headers = {"Idempotency-Key": transcript.key, **how.pop("headers", {})}
        reply = self.doors.patiently(
            transcript, "POST", path, transcript.asked, headers, note=transcript.answers.append, **how
        )
        self.doors.complain(transcript, f"POST {path}", reply)
        made = reply.json()
        transcript.id = transcript.id or str(made.get("id") or "")
        transcript.job_id = reply.headers.get("x-sangha-job-id") or str(made.get("job_id") or "") or transcript.job_id
        return made

    def read(self, transcript: Transcript, path: str) -> Mapping[str, Any]:
        """An object as it is now; empty where it is refused for good. Raises OutOfPatience."""
        reply = self.doors.patiently(transcript, "GET", path)
        self.doors.complain(transcript, f"GET {path}", reply)
        return reply.json() if reply.status == 200 else {}

    def poll(self, transcript: Transcript, path: str, status: str) -> Mapping[str, Any]:
        """Read an object until its `status` field says that it has ended. Raises OutOfPatience."""
        while seen := self.read(transcript, path):
            if not transcript.statuses or transcript.statuses[-1] != seen[status]:
                transcript.statuses.append(seen[status])
            if seen[status] in ENDED:
                break
            self.patience.check()
            time.sleep(POLL * self.rng.uniform(0.5, 1.5))
        return seen

    def settle_turn(self, transcript: Transcript) -> None:
        """The turn's stream has ended: note what is told of it from now on. Raises OutOfPatience."""
        if not transcript.id:
            return
        transcript.final = self.read(transcript, f"/v1/responses/{transcript.id}")
        if self.rng.random() < REPLAYED:
            for after in replayed_from(transcript, self.rng):
                self.listener.replay(transcript, stream_path(transcript), after)
        if self.rng.random() < DOUBTED:
            self.doubt(transcript)
        transcript.ended = time.monotonic()

    def doubt(self, transcript: Transcript) -> None:
        """Ask for the turn once more under its key, as a client that has lost the answer. Raises OutOfPatience."""
        if transcript.asked.get("stream"):
            self.listener.doubt(transcript)
        elif transcript.exact:  # OpenAI's client sends another body
            self.create(transcript, "/v1/responses")

    def cancel(self, transcript: Transcript) -> None:
        """Cancel a turn. Raises OutOfPatience."""
        path = f"/v1/responses/{transcript.id}/cancel"
        reply = self.doors.patiently(transcript, "POST", path, note=transcript.cancels.append)
        self.doors.complain(transcript, f"POST {path}", reply)


class Streamer(Client):
    """Streamed turns, left in mid-answer and rejoined, once or several times."""

    def work(self) -> None:
        transcript = self.turn(stream=True)
        self.listener.create(transcript, self.leaving())
        self.settle_turn(transcript)

    def leaving(self) -> OnHeard:
        """Leave after some numbers of events, which are known from the start."""
        places = {self.rng.randrange(1, self.tokens) for _ in range(self.rng.randrange(4))}
        return lambda transcript: len(transcript.events) in places


class OpenAIClient(Client):
    """OpenAI's own client, which streams and goes on by `starting_after`."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._official = Official(self.doors)

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._official.close()

    def work(self) -> None:
        transcript = self.turn()
        transcript.exact = False
        place = self.rng.randrange(1, self.tokens)
        leave: OnHeard = (lambda heard: len(heard.events) == place) if self.rng.random() < 0.5 else stay
        self._official.create(transcript, leave)
        self.settle_turn(transcript)


class Poller(Client):
    """Turns in the background, read now and then until they have ended; their stream is heard afterwards."""

    def work(self) -> None:
        transcript = self.turn(background=True)
        self.create(transcript, "/v1/responses")
        if transcript.id:
            self.poll(transcript, f"/v1/responses/{transcript.id}", "status")
            self.listener.follow(transcript, stream_path(transcript))
            self.settle_turn(transcript)


class Canceller(Client):
    """Cancels turns: before they begin, in mid-answer, and as they end."""

    def work(self) -> None:
        self.rng.choice([self._before, self._midway, self._late])()

    def _before(self) -> None:
        transcript = self.turn(background=True)
        self.create(transcript, "/v1/responses")
        if transcript.id:
            self.cancel(transcript)
            self.listener.follow(transcript, stream_path(transcript))
            self.settle_turn(transcript)

    def _midway(self) -> None:
        self._when(self.rng.randrange(2, self.tokens))

    def _late(self) -> None:
        self._when(self.tokens + self.rng.randrange(-4, 6))

    def _when(self, place: int) -> None:
        transcript = self.turn(stream=True)

        def on_heard(heard: Transcript) -> bool:
            if len(heard.events) == place and not heard.cancels:
                self.cancel(heard)
            return False

        self.listener.create(transcript, on_heard)
        self.settle_turn(transcript)


class Talker(Client):
    """Several turns of one conversation at once: one after the other is answered."""

    def work(self) -> None:
        place = self.begin("listing", {})
        conversation = self.create(place, "/v1/conversations")
        if "id" not in conversation:
            return
        place.ended = time.monotonic()
        turns = [self._say(str(conversation["id"])) for _ in range(self.rng.randrange(2, 5))]
        for transcript in turns:
            if transcript.id:
                self.listener.follow(transcript, stream_path(transcript))
                self.settle_turn(transcript)

    def _say(self, conversation: str) -> Transcript:
        transcript = self.turn(background=True, conversation=conversation)
        self.create(transcript, "/v1/responses")
        return transcript


class Lister(Client):
    """Reads the account's jobs page by page: none comes twice, and the newest come first."""

    def work(self) -> None:
        transcript = self.begin("listing", {})
        ids: list[str] = []
        page = self.read(transcript, "/v1/jobs?limit=50")
        while page.get("has_more") and len(ids) < 500:
            ids += [job["id"] for job in page["data"]]
            page = self.read(transcript, f"/v1/jobs?limit=50&after={ids[-1]}")
        ids += [job["id"] for job in page.get("data", ())]
        if ids != sorted(set(ids), reverse=True):
            transcript.strange.append(f"a listing of jobs repeats itself or is out of order: {ids}")
        transcript.ended = time.monotonic()
        self.patience.idle(self.rng.uniform(0.5, 2))
