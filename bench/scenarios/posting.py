"""CPU time of a turn of an account that is billed, with a spending limit and without, beside one that is not.

The accounts take turns in rounds of one run, so that whatever else the machine does meets all of them.
"""

from collections.abc import Sequence
from contextlib import closing

from bench.figures import Figure, at_most
from bench.harness.billing import bill_accounts
from bench.harness.processes import tree_cpu_seconds
from bench.harness.sse import CheckFailed
from bench.harness.stack import WITHOUT_MEMORY, RunningPlatform
from bench.load import closed_loop
from bench.scenario import Bench
from models.billing.currencies import MAX_AMOUNT
from models.billing.prices import MAX_PRICE
from models.platform.database import Database, fetch_one
from pipelines.inference.registry import model_name

ROUNDS, TURNS, WARM_UP = 12, 200, 100

SCRIPT = "tokens=20,rate=0"

#: The CPU time of a billed turn ÷ that of one that is not.
GOAL = at_most(1.05)

#: The accounts, by number.
FREE, BILLED, LIMITED = range(3)


def posting(bench: Bench) -> Sequence[Figure]:
    """Measure the CPU time of a turn with its posting ÷ without. Raises CheckFailed if a turn was not posted."""
    with bench.stack.platform(engine="scripted", script=SCRIPT) as platform:
        accounts = [str(platform.client(number).get("/v1/account")["id"]) for number in (FREE, BILLED, LIMITED)]
        with closing(Database(platform.settings.postgres_dsn, size=1, name="bench")) as database:
            model = model_name(platform.settings)
            bill_accounts(database, model, [accounts[BILLED]], price=MAX_PRICE)
            bill_accounts(database, model, [accounts[LIMITED]], price=MAX_PRICE, limit=MAX_AMOUNT)
            rounds = measure(bench, platform)
            check(database, accounts)
    return [
        Figure("CPU of all a turn, not billed", "ms", [costs[FREE] for costs in rounds]),
        Figure("billed turn ÷ not billed", "x", [costs[BILLED] / costs[FREE] for costs in rounds], GOAL),
        Figure("billed turn with a limit ÷ not billed", "x", [costs[LIMITED] / costs[FREE] for costs in rounds]),
    ]


def measure(bench: Bench, platform: RunningPlatform) -> list[dict[int, float]]:
    """Return the CPU milliseconds of a turn by account, of each round."""
    pids = [child.pid for child in bench.stack.servers.children.values()]
    for number in (FREE, BILLED, LIMITED):
        run(platform, number, WARM_UP)
    rounds = []
    for index in range(ROUNDS):
        bench.progress.step(index, ROUNDS, f"rounds of {TURNS} turns of each account")
        costs = {}
        for number in sorted((FREE, BILLED, LIMITED), reverse=bool(index % 2)):
            before = sum(map(tree_cpu_seconds, pids))
            run(platform, number, TURNS)
            costs[number] = 1000 * (sum(map(tree_cpu_seconds, pids)) - before) / TURNS
        rounds.append(costs)
    return rounds


def run(platform: RunningPlatform, number: int, turns: int) -> None:
    """Run turns of an account, one after the other."""
    token = platform.tokens(3)[number]
    bodies = [{"input": f"Turn {index}", **WITHOUT_MEMORY} for index in range(turns)]
    closed_loop(platform.address, [token], bodies)


COUNT = "SELECT count(*) AS count FROM postings WHERE account_id = %(account_id)s AND kind = 'usage'"


def check(database: Database, accounts: Sequence[str]) -> None:
    """Raise CheckFailed unless every turn of the billed accounts was posted, and none of the other."""
    turns = WARM_UP + ROUNDS * TURNS
    with database.connection() as connection:
        for account_id, expected in zip(accounts, (0, turns, turns), strict=True):
            row = fetch_one(connection, COUNT, {"account_id": account_id})
            if row is None or row["count"] != expected:
                raise CheckFailed(f"account {account_id} has {row} postings of {expected} turns")
