"""Waiting for a condition."""

import pytest

from bench.harness.waiting import wait_until


def test_the_first_true_value_is_returned():
    values = iter([0, "", "ready"])

    assert wait_until(lambda: next(values), interval=0) == "ready"


def test_a_condition_that_never_holds_raises_with_what_was_waited_for():
    with pytest.raises(TimeoutError, match=r"^the end was not met within 0\.01 s$"):
        wait_until(lambda: False, 0.01, interval=0.001, what="the end")
