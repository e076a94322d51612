"""Workers are killed while they charge: a small run of `python -m bench.chaos.charges`."""

import random

import pytest

from bench.chaos import charges, renewals
from bench.harness.stack import running_stack


@pytest.mark.timeout(300)
def test_charges_under_kills_agree_with_the_books_of_the_gateway():
    with running_stack("redis") as stack:
        result = charges.run(stack, 60, random.Random(7))

    assert result.differences == []
    assert result.kills > 0
    subscriptions = 60 // charges.PER_SUBSCRIPTION
    assert sum(result.payments.values()) == 60 + subscriptions * (1 + renewals.MISSED)
    assert result.payments["succeeded"] > result.payments["failed"] > 0


def test_a_payment_that_was_not_charged_is_a_difference():
    row = {"state": "succeeded", "charged": "succeeded", "charges": 1, "invoice": "paid", "refunded": 0, "returned": 0}

    assert charges._agrees(row)
    for change in ({"charges": 0, "charged": None}, {"charges": 2}, {"charged": "failed"}, {"invoice": "open"},
                   {"returned": 5}):  # fmt: skip
        assert not charges._agrees({**row, **change})
