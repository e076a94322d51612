"""When a client that reconnected has caught up with one of the other web process."""

from bench.scenarios.restart import caught_up
from bench.stream_clients import SeenEvent


def seen(*events: tuple[float, int], reconnects: int) -> list[SeenEvent]:
    return [SeenEvent(at, sequence, "", reconnects) for at, sequence in events]


def test_a_client_has_caught_up_when_it_has_all_that_the_other_one_had_by_then():
    staying = seen((1.0, 7), (2.0, 8), (3.0, 9), (4.0, 10), reconnects=0)

    assert caught_up(seen((2.5, 7), (2.6, 8), (3.1, 9), reconnects=1), staying) == 2.6
    assert caught_up(seen((4.5, 9), (4.6, 10), reconnects=1), staying) == 4.6
