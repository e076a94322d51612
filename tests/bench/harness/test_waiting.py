"""Waiting for a condition."""

import pytest

from bench.harness.waiting import wait_until


def test_the_first_true_value_is_returned():
    values = iter([0, "", "ready"])

    assert wait_until(lambda: next(values), interval=0) == "ready"


def test_a_timeout_names_what_was_waited_for():
    with pytest.raises(TimeoutError, match=r"^timed out after 0\.01 s waiting for the end$"):
        wait_until(lambda: False, 0.01, interval=0.001, what="the end")
