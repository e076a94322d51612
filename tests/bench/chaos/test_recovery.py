"""Given silences and faults, when recovery is told, then it is what clients felt, from when it could have ended."""

import pytest

from bench.chaos.faults import Struck
from bench.chaos.recovery import times
from bench.chaos.transcripts import Answer, Heard, Transcript

DELTA = "response.output_text.delta"


def heard(accepted: float, running: float, *deltas: float) -> Transcript:
    """A streamed turn that was accepted, ran, and spoke at these times."""
    transcript = Transcript("turn", "streamer", "acct_1", "key", {"stream": True}, 0.0, id="resp_1")
    transcript.answers = [Answer(accepted, 200, "", "resp_1")]
    whens = [(accepted, "response.queued"), (running, "response.in_progress"), *((at, DELTA) for at in deltas)]
    transcript.events = [Heard(at, 0, place, type_, b"{}") for place, (at, type_) in enumerate(whens)]
    return transcript


@pytest.mark.parametrize(
    ("fault", "felt"),
    [
        (Struck("kill-worker", "inference-a", 12.0, 14.0), 3.0),
        (Struck("kill-worker", "inference-a+inference-b", 12.0, 14.0), 1.0),
        (Struck("stall-link", "web-valkey", 12.0, 14.0), 1.0),
        (Struck("kill-valkey", "valkey", 12.0, 16.0), 0.0),
    ],
    ids=["another stands", "none stands", "a link", "over before it was healed"],
)
def test_a_silence_is_counted_from_when_the_platform_could_go_on(fault, felt):
    spoke = heard(9.0, 10.0, 11.0, 15.0, 15.1)

    assert times([spoke], [fault]) == {fault.name: [pytest.approx(felt, abs=0.11)]}


def test_a_turn_that_waits_for_a_slot_feels_nothing():
    waited = heard(1.0, 20.0, 20.1)

    assert times([waited], [Struck("kill-worker", "inference-a", 5.0, 6.0)]) == {}


def test_silence_after_a_cancel_is_what_was_asked_for():
    cancelled = heard(9.0, 10.0, 11.0, 15.0)
    cancelled.cancels = [Answer(11.5, 200)]

    assert times([cancelled], [Struck("kill-worker", "inference-a", 12.0, 13.0)]) == {}


def test_of_two_faults_the_one_is_felt_that_was_struck_when_the_silence_began():
    spoke = heard(9.0, 10.0, 11.0, 31.0)
    faults = [Struck("freeze-worker", "inference-a", 11.1, 33.0), Struck("kill-web", "web-a", 20.0, 21.0)]

    assert times([spoke], faults) == {"freeze-worker": [pytest.approx(19.9)]}
