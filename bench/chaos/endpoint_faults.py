"""The faults of an endpoint, of the worker that asks it, and of both engines at once, so that turns have to leave."""

from collections.abc import Mapping
from typing import Any

from bench.chaos.fault import DEAD, DISTURBED, Fault, on_each
from bench.chaos.processes import ENGINES, UPSTREAM
from bench.chaos.stack import ChaosStack

#: The name of the fault, and its targets: the ways in which an endpoint fails. See `Behaviour`.
NAME = "endpoint"
WAYS: Mapping[str, Mapping[str, Any]] = {
    "endpoint-refuses": {"fault": "refuse"},
    "endpoint-500": {"fault": "status", "status": 500},
    "endpoint-429": {"fault": "status", "status": 429, "retry_after": 2.0},
    "endpoint-slow": {"fault": "slow", "delay": 3.0},
    "endpoint-hangs": {"fault": "hang", "after": 7},
    "endpoint-drops": {"fault": "drop", "after": 7},
    "endpoint-garbage": {"fault": "garbage", "after": 3},
}

#: Seconds that both engines stay dead: longer than turns wait before they leave.
ENGINES_DEAD = (5.0, 8.0)


def endpoint_faults() -> list[Fault]:
    """Return the faults."""
    engines, kill, start = "+".join(ENGINES), on_each(ChaosStack.kill), on_each(ChaosStack.start)
    return [
        Fault(
            NAME, "the endpoint refuses, is slow, or fails before or in an answer", [*WAYS], DISTURBED, fail, recover
        ),
        Fault("kill-upstream", "kill -9 the worker that asks the endpoint", [UPSTREAM], DEAD, kill, start),
        Fault("engines-down", "kill -9 both workers with an engine, for longer", [engines], ENGINES_DEAD, kill, start),
    ]


def fail(stack: ChaosStack, target: str) -> None:
    """Let the endpoint fail in one way."""
    assert stack.endpoint is not None
    stack.endpoint.change(**WAYS[target])


def recover(stack: ChaosStack, target: str) -> None:
    """End the endpoint's fault."""
    assert stack.endpoint is not None
    stack.endpoint.heal()
