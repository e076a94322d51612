"""What only the engine `ctransformers` has: template, tokens, slots. The rest is in test_engine_contract."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.harness.random_models.llama2 import write_llama2
from models.platform.errors import ConfigurationError, PermanentFailure
from models.platform.settings import Settings
from pipelines.inference.ctransformers.chat_template import LLAMA2, ChatTemplate
from pipelines.inference.ctransformers.engine import CTransformersEngine, load_ctransformers
from pipelines.inference.engine import Finish, Message, Sampling

PROMPT = [Message("system", "Be kind."), Message("user", "What is it?")]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CTransformersEngine]:
    file = write_llama2(tmp_path_factory.mktemp("models") / "model.gguf")
    engine = load_ctransformers(
        Settings.model_validate({"engine": "ctransformers", "model": str(file), "slots": 2, "prompt_cache": "account"})
    )
    yield engine
    engine.close()


def finish_of(engine: CTransformersEngine, owner: str | None) -> Finish:
    *_, finish = engine.generate(
        PROMPT, prefix="", sampling=Sampling(4, temperature=0), cancelled=lambda: False, cache_owner=owner
    )
    assert isinstance(finish, Finish)
    return finish


def test_the_default_template_is_that_of_llama_2() -> None:
    template = ChatTemplate(LLAMA2, "<s>", "</s>")
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes"},
        {"role": "user", "content": "Why?"},
    ]

    first = "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST]"
    assert template.render(messages) == f"{first} Yes </s><s>[INST] Why? [/INST]"
    assert template.render(messages[:3]) == f"{first} Yes"


def test_a_models_template_cannot_leave_its_sandbox() -> None:
    template = ChatTemplate("{{ messages.__class__.__mro__[1].__subclasses__() }}", "<s>", "</s>")

    with pytest.raises(PermanentFailure, match="rejects the prompt"):
        template.render([])
    with pytest.raises(ConfigurationError, match="its chat template has an error"):
        ChatTemplate("{% if %}", "<s>", "</s>")


def test_control_tokens_of_the_template_are_tokens(engine: CTransformersEngine) -> None:
    tokens = engine._vocabulary.tokens("<s>the</s><s>of")

    assert [token for token in tokens if token in (1, 2)] == [1, 2, 1]
    assert engine._vocabulary.tokens("the")[0] == 1


def test_a_text_of_many_bytes_a_character_is_counted(engine: CTransformersEngine) -> None:
    # Four tokens for each character, for which the library's own function has no room
    assert engine.count([Message("user", "\U0001f999" * 400)]) > 1600


def test_a_text_after_a_zero_byte_is_read(engine: CTransformersEngine) -> None:
    assert engine.count([Message("user", "a\0" + "b" * 50)]) > 50


def test_a_bound_of_tokens_is_below_their_number(engine: CTransformersEngine) -> None:
    prompt = [Message("user", "that they have this " * 200)]

    assert 0 < engine.min_tokens(prompt) <= engine.count(prompt)


def test_prompts_of_one_account_are_shared_with_no_other(engine: CTransformersEngine) -> None:
    finish_of(engine, "ann")

    assert finish_of(engine, "bob").cached_tokens == 0
    assert finish_of(engine, "ann").cached_tokens > 0
    assert finish_of(engine, None).cached_tokens == 0


def test_the_context_is_that_of_the_model(tmp_path: Path, engine: CTransformersEngine) -> None:
    assert (engine.context, engine.slots, engine.name) == (2048, 2, "model")
