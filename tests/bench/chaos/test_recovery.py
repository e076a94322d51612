"""Given silences and faults, then recovery is the silence from when the platform could have continued."""

import pytest

from bench.chaos.fault import InjectedFault
from bench.chaos.recovery import recovery_times
from bench.chaos.transcripts import ClientTranscript, RecordedReply
from bench.harness.sse import ReceivedEvent

DELTA = "response.output_text.delta"


def streamed_turn(accepted: float, running: float, *deltas: float) -> ClientTranscript:
    """Return a streamed turn that was accepted, started, and had deltas at these times."""
    transcript = ClientTranscript("turn", "streamer", "acct_1", "key", {"stream": True}, 0.0, id="resp_1")
    transcript.replies = [RecordedReply(accepted, 200, "", "resp_1")]
    times = [(accepted, "response.queued"), (running, "response.in_progress"), *((at, DELTA) for at in deltas)]
    transcript.events = [ReceivedEvent(at, number, type_, b"{}") for number, (at, type_) in enumerate(times)]
    return transcript


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        (InjectedFault("kill-worker", "inference-a", 12.0, 14.0), 3.0),
        (InjectedFault("kill-worker", "inference-a+inference-b", 12.0, 14.0), 1.0),
        (InjectedFault("stall-link", "web-valkey", 12.0, 14.0), 1.0),
        (InjectedFault("kill-valkey", "valkey", 12.0, 16.0), 0.0),
    ],
    ids=["another process", "no other process", "a link", "over before it was healed"],
)
def test_a_silence_counts_from_when_the_platform_could_continue(fault, seconds):
    turn = streamed_turn(9.0, 10.0, 11.0, 15.0, 15.1)

    assert recovery_times([turn], [fault]) == {fault.name: [pytest.approx(seconds, abs=0.11)]}


def test_a_turn_that_waits_for_a_slot_does_not_count():
    turn = streamed_turn(1.0, 20.0, 20.1)

    assert recovery_times([turn], [InjectedFault("kill-worker", "inference-a", 5.0, 6.0)]) == {}


def test_a_silence_after_a_cancel_does_not_count():
    turn = streamed_turn(9.0, 10.0, 11.0, 15.0)
    turn.cancels = [RecordedReply(11.5, 200)]

    assert recovery_times([turn], [InjectedFault("kill-worker", "inference-a", 12.0, 13.0)]) == {}


def test_a_silence_is_attributed_to_the_fault_that_began_nearest_to_it():
    turn = streamed_turn(9.0, 10.0, 11.0, 31.0)
    faults = [InjectedFault("freeze-worker", "inference-a", 11.1, 33.0), InjectedFault("kill-web", "web-a", 20.0, 21.0)]

    assert recovery_times([turn], faults) == {"freeze-worker": [pytest.approx(19.9)]}
