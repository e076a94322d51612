"""Planted bugs in the way of turns to an endpoint, which its book, the spill budget or its breaker must reveal."""

from bench.chaos.planted_bug import Edit, PlantedBug

SPILLING = (
    PlantedBug(
        "leaves-anyway",
        "a turn is sent to an endpoint although its request or account keeps it in the installation",
        [
            Edit("models/serving/moves.py", "coalesce(arguments ->> 'residency', 'any') <> 'local'\n", "true\n"),
            Edit(
                "models/serving/moves.py",
                "AND coalesce(account_residency, %(default)s) = 'any')))",
                "AND coalesce(account_residency, %(default)s) <> '')))",
            ),
        ],
        ("kill-web",),
        broker="redis",
        spills=True,
    ),
    PlantedBug(
        "never-settled",
        "what was reserved of the spill budget for a turn is not given back when it ends",
        [Edit("models/jobs/route_costs.py", 'if "cost" not in route:', "if route is not None:")],
        ("kill-upstream",),
        broker="redis",
        spills=True,
    ),
    PlantedBug(
        "share-ignored",
        "more turns are moved than their part of the day's",
        [
            Edit(
                "models/serving/spill_budget.py",
                'turns = max(0, int(share * (row["ended_turns"] + unfinished)) - row["spilled_turns"])',
                'turns = max(0, int(4 * (row["ended_turns"] + unfinished)) - row["spilled_turns"])',
            )
        ],
        ("engines-down",),
        broker="redis",
        spills=True,
    ),
    PlantedBug(
        "never-opens",
        "a breaker stays closed, however many requests of its endpoint fail",
        [Edit("models/serving/breakers.py", "MIN_FAILURES = 5\n", "MIN_FAILURES = 5000\n")],
        ("endpoint:endpoint-500", "endpoint:endpoint-drops"),
        broker="redis",
        spills=True,
    ),
)
