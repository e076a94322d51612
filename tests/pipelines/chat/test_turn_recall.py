"""Given a recaller, when its embedder or the database fails or is slow, then a turn is given nothing, and in time."""

import threading
from datetime import UTC, datetime

import pytest

from models.memory.memories import NewMemory
from models.platform.errors import ConfigurationError
from pipelines.chat import turn_recall
from pipelines.chat.turn_recall import Recaller
from pipelines.memory.recall_counter import RecallCounter
from pipelines.memory.store import write_memories
from tests.pipelines.memory.job_helpers import flat


class Loader:
    """Loads an embedder and counts how often, and what it is asked."""

    def __init__(self, embed=flat):
        self.loads = 0
        self.asked = []
        self.embed = embed

    def __call__(self):
        self.loads += 1

        def embed(texts):
            self.asked += texts
            return self.embed(texts)

        return embed


def remember(room, *texts):
    news = [NewMemory(f"mem_{room.caller.user_id}_{text}", text, "user", datetime.now(UTC)) for text in texts]
    write_memories(room.database, flat, room.caller.account_id, room.caller.user_id, news)


def recall(room, load, question="my cat"):
    asking = Recaller(load, RecallCounter(room.database), 2)
    response = room.start().response
    return [[hit.memory.text for hit in asking(room.database, response, question, 5)] for _ in range(2)]


def test_the_embedder_is_loaded_for_those_who_have_memories_and_a_question_is_embedded_once(room):
    load = Loader()
    assert recall(room, load) == [[], []]
    assert load.loads == 0

    remember(room, "I have a cat.")

    assert recall(room, load) == [["I have a cat."]] * 2
    assert (load.loads, load.asked) == (1, ["my cat"])


@pytest.mark.parametrize("error", [ConfigurationError("no such file"), RuntimeError("out of memory")])
def test_a_turn_goes_on_without_an_embedder(room, error):
    def load():
        raise error

    remember(room, "I have a cat.")

    assert recall(room, load) == [[], []]


def test_a_turn_does_not_wait_for_a_slow_one(room, monkeypatch):
    monkeypatch.setattr(turn_recall, "PATIENCE", 0.05)
    done = threading.Event()

    def slow(texts):
        done.wait(10)
        return flat(texts)

    remember(room, "I have a cat.")

    assert recall(room, Loader(slow)) == [[], []]
    done.set()
