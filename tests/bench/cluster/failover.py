"""A program that loses the primary of Postgres in a cluster: `python -m tests.bench.cluster.failover`.

It prints the state of a turn before the failover, and of one after it.
"""

from contextlib import closing

from bench.cluster.namespaces import enter_private_namespaces
from bench.cluster.stack import ClusterStack, cluster_stack
from bench.harness.client import Client, sign_up
from bench.harness.sse import CheckFailed
from bench.harness.waiting import wait_until

#: Seconds within which turns are answered again: connections to a host that is cut off are noticed after ten seconds.
PATIENCE = 60.0


def answer(stack: ClusterStack, token: str) -> str:
    """Return the type of the last event of a turn through the gateway; nothing where it is refused."""
    try:
        with closing(Client(stack.addresses[0], token)) as client:
            return list(client.stream("hello"))[-1].type
    except (CheckFailed, OSError):
        return ""


def main() -> None:
    """Run a cluster, and cut its primary off."""
    enter_private_namespaces()
    with cluster_stack() as stack:
        token = sign_up(stack.addresses[0])
        print("before", answer(stack, token), flush=True)
        lost = stack.postgres.primary.host.name
        stack.fail_over(cut_off=True)
        assert stack.postgres.primary.host.name != lost
        print("after", wait_until(lambda: answer(stack, token), PATIENCE, interval=0.5), flush=True)


if __name__ == "__main__":
    main()
