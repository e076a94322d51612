"""Planted bugs in batches, which the batches of a run must detect."""

from bench.chaos.planted_bug import Edit, PlantedBug

BATCHES = (
    PlantedBug(
        "running-lines-ended",
        "a batch takes the answers of lines that still run",
        [
            Edit(
                "models/batches/lines.py",
                "AND jobs.state IN ('scheduled', 'queued', 'running', 'waiting'))\nORDER BY",
                "AND jobs.state IN ('scheduled', 'queued'))\nORDER BY",
            )
        ],
        ("kill-web",),
        broker="redis",
    ),
    PlantedBug(
        "answers-uncounted",
        "answers are stored and counted in two transactions, between which a worker may be killed",
        [
            Edit(
                "pipelines/batches/end_lines.py",
                "        lines.end(connection, batch, ended)\n        progress.advance(\n",
                "        lines.end(connection, batch, ended)\n"
                "        connection.execute('COMMIT')\n        connection.sync()\n"
                "        import time; time.sleep(2)\n"
                "        connection.execute('BEGIN')\n        progress.advance(\n",
            )
        ],
        ("kill-light",),
        broker="redis",
        minutes=1.5,
    ),
)
