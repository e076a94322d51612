"""Build snapshots from texts."""

from datetime import UTC, datetime, timedelta

import numpy as np

from models.memory.scan import ScannedMemory
from pipelines.memory.meditation.snapshot import Snapshot

START = datetime(2026, 1, 1, tzinfo=UTC)


def scanned_memory(index, text, **fields):
    """Return a memory, by default an episode of the user, five days after the previous one."""
    defaults = {
        "id": f"mem_{index}", "ordinal": index, "kind": "episode", "text": text, "speaker": "user",
        "occurred_at": START + timedelta(days=5 * index), "conversation_id": None, "metadata": {}, "importance": 0.5,
        "recalled": 0, "recalled_at": None, "valid_from": None, "created_at": START, "updated_at": START, "sources": (),
    }  # fmt: skip
    return ScannedMemory(**{**defaults, **fields})


def snapshot_of(*memories):
    """Return a snapshot of memories whose vectors are all equal."""
    return Snapshot(list(memories), np.full((len(memories), 4), 0.5, dtype=np.float16))
