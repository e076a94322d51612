"""A turn gets no memories, in time, when the embedder or the database fails or is slow."""

import threading
from datetime import UTC, datetime

import pytest

from models.memory.memories import NewMemory
from models.memory.spaces import SpaceKey
from models.platform.compatibility import Compatibility
from models.platform.errors import ConfigurationError
from pipelines.chat import turn_recall
from pipelines.chat.turn_recall import TurnRecall
from pipelines.memory.recall_counter import RecallCounter
from pipelines.memory.store import write_memories
from tests.pipelines.memory.job_helpers import embed_alike


class Loader:
    """Loads an embedder, and records the loads and the embedded texts."""

    def __init__(self, embed=embed_alike):
        self.loads = 0
        self.embedded = []
        self.embed = embed

    def __call__(self):
        self.loads += 1

        def embed(texts):
            self.embedded += texts
            return self.embed(texts)

        return embed


def remember_texts(harness, *texts):
    memories = [NewMemory(f"mem_{harness.caller.user_id}_{text}", text, "user", datetime.now(UTC)) for text in texts]
    write_memories(harness.database, embed_alike, SpaceKey(harness.caller.account_id, harness.caller.user_id), memories)


def recall(harness, load, question="my cat"):
    recaller = TurnRecall(load, RecallCounter(harness.database), Compatibility(harness.database), 2)
    response = harness.start().response
    return [[hit.memory.text for hit in recaller(harness.database, response, question, 5)] for _ in range(2)]


def test_the_embedder_is_loaded_for_users_with_memories_and_embeds_a_query_once(harness):
    load = Loader()
    assert recall(harness, load) == [[], []]
    assert load.loads == 0

    remember_texts(harness, "I have a cat.")

    assert recall(harness, load) == [["I have a cat."]] * 2
    assert (load.loads, load.embedded) == (1, ["my cat"])


@pytest.mark.parametrize("error", [ConfigurationError("no such file"), RuntimeError("out of memory")])
def test_a_turn_continues_without_an_embedder(harness, error):
    def load():
        raise error

    remember_texts(harness, "I have a cat.")

    assert recall(harness, load) == [[], []]


def test_a_turn_does_not_wait_for_a_slow_embedder(harness, monkeypatch):
    monkeypatch.setattr(turn_recall, "TIMEOUT", 0.05)
    done = threading.Event()

    def slow(texts):
        done.wait(10)
        return embed_alike(texts)

    remember_texts(harness, "I have a cat.")

    assert recall(harness, Loader(slow)) == [[], []]
    done.set()
