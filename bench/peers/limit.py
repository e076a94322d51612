"""Measure how many answers the scripted endpoint alone can give, to show that it is not the bottleneck."""

from itertools import repeat

import orjson

from bench.harness.client import Address
from bench.load import post_request, send_all

ANSWERS = 4000


def answers_a_second(address: Address, connections: int, script: str, answers: int = ANSWERS) -> float:
    """Measure whole answers a second over several connections, read by one process that parses nothing."""
    body = orjson.dumps({"model": script, "stream": True, "messages": [{"role": "user", "content": "hello"}]})
    shared = repeat(post_request("/v1/chat/completions", body), answers)
    seconds, _ = send_all(address, [shared] * connections)
    return answers / seconds
