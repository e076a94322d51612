"""Importance decays while a memory is unused and rises with use."""

from datetime import timedelta

from pipelines.memory.meditation import importance
from tests.pipelines.memory.meditation.snapshots import START, scanned_memory, snapshot_of


def test_importance_decays_without_use_and_rises_with_use():
    def importance_after(days, **fields):
        return importance.importance_at(scanned_memory(0, "x", **fields), START + timedelta(days=days))

    used = {"recalled": 5, "recalled_at": START + timedelta(days=100)}
    assert importance_after(0) == 0.5
    assert importance_after(100) < 0.5
    assert importance_after(10_000) == importance.FLOOR
    assert importance_after(100, **used) > 0.7
    assert importance_after(300) < importance_after(300, **used) < importance_after(100, **used)


def test_importance_set_by_a_user_is_kept():
    later = START + timedelta(days=400)
    memories = [
        scanned_memory(0, "x"),
        scanned_memory(1, "x", importance=0.9),
        scanned_memory(2, "x", importance=0.3, weighed=0.3),
    ]

    assert [index for index, _ in importance.importance_changes(snapshot_of(*memories), later)] == [0, 2]
