"""Given streams and kills of both platforms, then what they come to is counted alike."""

from bench.client import DELTA, Heard, text_of
from bench.scenarios.peer import RESTARTED, Kill, kills_of, since_restart


def heard(sequence: int, type_: str, data: bytes = b"{}") -> Heard:
    return Heard(0, sequence, type_, data)


def delta(sequence: int, text: str) -> Heard:
    return heard(sequence, DELTA, b'{"delta":"%b"}' % text.encode())


def test_text_before_an_answer_that_begins_again_does_not_count() -> None:
    events = [delta(0, "w0 "), delta(1, "w1 "), heard(2, RESTARTED), delta(3, "w0 "), heard(4, "response.completed")]
    assert text_of(since_restart(events)) == "w0 "
    assert since_restart(events[3:]) == events[3:]


def test_kills_without_a_next_token_count_for_everything_else() -> None:
    kills = [Kill(0.5, 0, 0, ended=True), Kill(None, 120, 0, ended=False)]
    figures = list(kills_of("ours", kills, promised=True))
    assert [list(figure.samples) for figure in figures] == [[0.5], [0, 120], [0, 0], [1]]
    assert [figure.met for figure in figures] == [True, False, True, None]
    # And where no kill had one there is nothing to say of it
    assert [figure.goal for figure in kills_of("theirs", kills[1:], promised=False)] == [None] * 3
    assert not list(kills_of("nobody's", [], promised=False))
