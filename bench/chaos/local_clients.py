"""The clients of a fleet whose turns may not leave the installation: they are marked for the checker."""

import time
from collections.abc import Sequence
from typing import Any

from bench.chaos.clients import FleetClient, Streamer
from bench.chaos.retrying_client import HttpRequest
from bench.chaos.stream_follower import stream_path
from bench.chaos.transcripts import ClientTranscript
from bench.harness.stack import WITHOUT_MEMORY

#: Turns of each kind between two changes of the account.
TURNS = (1, 4)


class LocalClient(FleetClient):
    """Sends turns that may not leave, once no process of a version without residency runs."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._begun = False

    def begin_local_turns(self) -> None:
        """Let it work from now on."""
        self._begun = True

    def work(self) -> None:
        if self._begun:
            self.work_locally()

    def work_locally(self) -> None:
        """Do one piece of work, to its end."""
        raise NotImplementedError


class LocalStreamer(LocalClient, Streamer):
    """Streams turns that may not leave, as each request says."""

    def work_locally(self) -> None:
        transcript = self.begin_turn(stream=True, residency="local", **WITHOUT_MEMORY)
        transcript.stays_from = 0.0
        self.follower.create(transcript, self.disconnects())
        self.finish_turn(transcript)


class ResidencyChanger(LocalClient):
    """Changes whether the turns of its account may leave while some of them wait.

    Those that were created while they might not leave never may. Those that were created while they might, and have
    not left, may not after the change.
    """

    def work_locally(self) -> None:
        self._set_residency("local")
        staying = self._create_turns()
        for transcript in staying:
            transcript.stays_from = 0.0
        self._set_residency("any")
        leaving = self._create_turns()
        self._set_residency("local")
        for transcript in leaving:
            transcript.stays_from = time.time()
        for transcript in (*staying, *leaving):
            self._finish(transcript)

    def _set_residency(self, residency: str) -> None:
        transcript = self.begin("listing", {"residency": residency})
        request = HttpRequest("PATCH", "/v1/account", {"residency": residency})
        reply = self.http.send(transcript, request, record=transcript.replies.append)
        if reply.status != 200:
            transcript.unexpected.append(f"PATCH /v1/account was answered with {reply.status}")
        transcript.ended = time.monotonic()

    def _create_turns(self) -> Sequence[ClientTranscript]:
        turns = [
            self.begin_turn(background=True, **WITHOUT_MEMORY) for _ in range(self.rng.randrange(TURNS[0], TURNS[1]))
        ]
        for transcript in turns:
            self.create(transcript, "/v1/responses")
        return turns

    def _finish(self, transcript: ClientTranscript) -> None:
        if transcript.id:
            self.follower.follow(transcript, stream_path(transcript))
            self.finish_turn(transcript)
