"""Planted bugs in files and in the sums of reports, which the clients of a run must detect."""

from bench.chaos.planted_bug import Edit, PlantedBug

FILES = (
    PlantedBug(
        "answered-unstored",
        "an upload is answered before its content is stored, which a killed process never stores",
        [
            Edit(
                "pipelines/files/writer.py",
                "        self.objects.put(key, io.BytesIO(content))\n",
                "        import threading\n"
                "        threading.Timer(1.0, self.objects.put, [key, io.BytesIO(content)]).start()\n",
            )
        ],
        ("kill-web",),
        broker="redis",
    ),
    PlantedBug(
        "parts-as-they-came",
        "the parts of an upload are joined in the order in which they arrived",
        [
            Edit(
                "models/accounts/uploads.py",
                "ORDER BY part.position, number\n",
                "ORDER BY file_objects.created_at, part.position, number\n",
            )
        ],
        ("kill-web",),
        broker="redis",
    ),
)

REPORTS = (
    PlantedBug(
        "sums-counted-twice",
        "sums are added in one transaction, and counted as added in another, between which a worker may be killed",
        [
            Edit(
                "models/reports/usage_rollups.py",
                "    changed = _add_changes(connection)\n",
                "    changed = _add_changes(connection)\n"
                "    connection.execute('COMMIT')\n"
                "    import time; time.sleep(1)\n"
                "    connection.execute('BEGIN ISOLATION LEVEL REPEATABLE READ')\n",
            )
        ],
        ("kill-reporting",),
        broker="redis",
        minutes=1.0,
    ),
)
