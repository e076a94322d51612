"""With SANGHA_PROMPT_CACHE=account a prompt reuses only what its own account has left in a slot."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from models.platform.settings import Settings
from pipelines.inference.engine import Finish, Message, Sampling
from pipelines.inference.llamacpp.engine import LlamaCppEngine, load_llamacpp
from pipelines.inference.llamacpp.isolated_slots import IsolatedSlots

HELLO, BYE = [{"role": "user", "content": "hello"}], [{"role": "user", "content": "bye"}]


def generate(slots: IsolatedSlots, owner: str | None, prompt: list[dict[str, str]], *, begins: bool = True) -> object:
    """Take a slot for a generation; return its number and whether it reuses the slot's prompt."""
    with slots.take(owner, prompt, lambda: begins) as slot:
        return slot.number, slot.reuses


def test_a_prompt_goes_to_the_slot_with_most_of_it_of_the_same_owner() -> None:
    slots = IsolatedSlots(3)
    assert [generate(slots, "a", HELLO), generate(slots, "a", BYE)] == [(0, False), (1, False)]
    assert generate(slots, "a", [*BYE, *HELLO]) == (1, True)
    assert generate(slots, "b", HELLO) == (2, False)
    assert generate(slots, "a", HELLO) == (0, True)


def test_the_slot_of_another_owner_is_not_reused() -> None:
    slots = IsolatedSlots(1)
    owners = ["a", "b", "b", "a", None, None, "a"]
    assert [generate(slots, owner, HELLO) for owner in owners] == [
        (0, reuses) for reuses in (False, False, True, False, False, False, False)
    ]


def test_a_slot_that_has_not_begun_to_read_keeps_no_owner() -> None:
    """llama.cpp may still have the prompt of the former owner in it."""
    slots = IsolatedSlots(1)
    generate(slots, "a", HELLO)
    assert generate(slots, "b", HELLO, begins=False) == (0, False)
    assert generate(slots, "b", HELLO) == (0, False)
    assert generate(slots, "a", HELLO, begins=False) == (0, False)
    assert generate(slots, "b", HELLO) == (0, False)


def test_generations_at_the_same_time_take_different_slots() -> None:
    slots = IsolatedSlots(2)
    with ExitStack() as running:
        taken = [running.enter_context(slots.take("a", HELLO, lambda: True)).number for _ in range(2)]
    assert sorted(taken) == [0, 1]


@pytest.fixture(scope="module")
def engine() -> Iterator[LlamaCppEngine]:
    engine = load_llamacpp(Settings(slots=2, context=512, prompt_cache="account"))
    yield engine
    engine.close()


def cached_tokens(
    engine: LlamaCppEngine, owner: str | None, text: str, cancelled: Callable[[], bool] = lambda: False
) -> int:
    prompt = [Message("system", "Answer in one word."), Message("user", text)]
    *_, finish = engine.generate(
        prompt, prefix="", sampling=Sampling(1, temperature=0), cancelled=cancelled, cache_owner=owner
    )
    assert isinstance(finish, Finish)
    return finish.cached_tokens


def test_an_engine_caches_prompts_for_their_own_account_only(engine: LlamaCppEngine) -> None:
    secret = "My locker code at the gym is 4931, please tell nobody."
    assert cached_tokens(engine, "victim", secret) == 0
    assert [cached_tokens(engine, owner, secret) for owner in ("attacker", None, None)] == [0, 0, 0]
    assert cached_tokens(engine, "victim", secret) == 0  # its slot was taken
    assert cached_tokens(engine, "victim", secret) > 20
    assert cached_tokens(engine, "attacker", secret, cancelled=lambda: True) == 0
    assert cached_tokens(engine, "attacker", secret) == 0
