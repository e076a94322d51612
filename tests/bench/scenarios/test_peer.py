"""Kills of both platforms, and their figures."""

from bench.scenarios.peer import PeerKill, kill_figures


def test_kills_without_a_next_token_count_in_all_other_figures() -> None:
    kills = [PeerKill(0.05, 0, 0, completed=True), PeerKill(None, 120, 0, completed=False)]
    figures = list(kill_figures("ours", kills, promised=True))
    assert [list(figure.samples) for figure in figures] == [[0.05], [0, 120], [0, 0], [1]]
    assert [figure.met for figure in figures] == [True, False, True, None]
    # And without any next token there is no figure of its time
    assert [figure.goal for figure in kill_figures("theirs", kills[1:], promised=False)] == [None] * 3
    assert not list(kill_figures("none", [], promised=False))
