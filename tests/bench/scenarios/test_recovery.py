"""Errors of an answer after a kill."""

from bench.scenarios.recovery import TOKENS, count_errors


def test_lost_and_repeated_tokens_are_counted():
    whole = [f"w{number}" for number in range(TOKENS)]

    assert count_errors(" ".join(whole)) == (0, 0)
    assert count_errors(" ".join(whole[1:])) == (1, 0)
    assert count_errors(" ".join([*whole, "w3", "w4"])) == (0, 2)
