"""A stream that is read in a thread."""

from collections.abc import Iterator

import pytest

from bench.harness.client import BackgroundStream
from bench.harness.sse import CheckFailed


def broken() -> Iterator[int]:
    yield 1
    raise ConnectionResetError


def test_the_events_of_a_stream_are_collected_in_order():
    stream = BackgroundStream(iter([1, 2, 3]))

    assert stream.read_to_end() == [1, 2, 3]
    assert stream.wait_for(lambda number: number > 1, 2) == 3


def test_an_event_that_does_not_arrive_fails_the_check():
    with pytest.raises(CheckFailed, match="ended or stalled too soon"):
        BackgroundStream(iter([1])).wait_for(lambda number: number == 2)


def test_the_error_that_ended_a_stream_is_raised_at_its_end():
    stream = BackgroundStream(broken())

    with pytest.raises(ConnectionResetError):
        stream.read_to_end()
    assert stream.events == [1]
