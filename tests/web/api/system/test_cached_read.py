"""A cached read asks its source once for many callers, and less often if the source is slow."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from web.api.system.cached_read import MAX_AGE, MAX_SHARE, CachedRead


class Source:
    """A source of increasing numbers, each of which takes `seconds` on its own clock."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.now = 100.0
        self.reads = 0

    def read(self) -> int:
        self.now += self.seconds
        self.reads += 1
        return self.reads


@pytest.mark.parametrize(("seconds", "age"), [(0.001, MAX_AGE), (0.5, 0.5 / MAX_SHARE)])
def test_value_is_read_again_after_its_age_or_a_multiple_of_the_duration(seconds, age):
    source = Source(seconds)
    cached = CachedRead(source.read, clock=lambda: source.now)

    assert cached() == 1
    source.now += age - 0.001
    assert cached() == 1
    source.now += 0.001
    assert cached() == 2


def test_concurrent_callers_share_one_read():
    # Given a read that begins when eight more callers have started
    started = threading.Barrier(9, timeout=20)
    reads = []

    def read() -> str:
        started.wait()
        reads.append("a read")
        return "value"

    cached = CachedRead(read)

    def call() -> str:
        started.wait()
        return cached()

    # When they call it too
    with ThreadPoolExecutor(9) as pool:
        calls = [pool.submit(cached), *(pool.submit(call) for _ in range(8))]
        values = {future.result(20) for future in calls}
    # Then all get its value
    assert (values, reads) == ({"value"}, ["a read"])
