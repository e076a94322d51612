"""Reasoning with the bundled model, whose template is replaced by those of reasoning models.

It does not reason by itself: biases and grammars make it write what such a model would.
"""

from collections.abc import Iterator, Sequence

import pytest

from models.platform.settings import Settings
from pipelines.inference.engine import (
    PLAIN_TEXT,
    Finish,
    GeneratedCall,
    Message,
    OutputFormat,
    PromptRead,
    ReasoningToken,
    Sampling,
    Token,
    Tool,
)
from pipelines.inference.llamacpp.engine import LlamaCppEngine
from pipelines.inference.llamacpp.gguf_files import engine_file
from pipelines.inference.llamacpp.loopback import LoopbackClient
from pipelines.inference.llamacpp.reasoning import ReasoningMarks
from pipelines.inference.llamacpp.server import server_parameters, start_server
from pipelines.inference.llamacpp.token_bound import TokenBound

MESSAGES = """{%- for message in messages %}
{%- if message.role == 'assistant' %}
{%- set reasoning = message.reasoning_content if message.reasoning_content is string else '' %}
{{- '<|im_start|>assistant\\n' }}
{%- if reasoning or loop.last %}{{- '<think>\\n' + reasoning + '\\n</think>\\n\\n' }}{%- endif %}
{{- message.content + '<|im_end|>\\n' }}
{%- else %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endif %}
{%- endfor %}"""

#: As Qwen3's: the model opens its reasoning itself, and the template closes it where it is disabled.
OPTIONAL = (
    MESSAGES
    + """{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""
)

#: As DeepSeek R1's: the prompt ends with the opening mark.
ALWAYS = MESSAGES + "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"

QUESTION = [Message("user", "Hello!")]
GREEDY = Sampling(max_output_tokens=24, temperature=0)
TOOL = Tool("look", "Look up", {"type": "object", "properties": {"n": {"enum": [1]}}, "required": ["n"]})
SCHEMA = {"type": "object", "properties": {"n": {"enum": [1]}}, "required": ["n"], "additionalProperties": False}

pytestmark = pytest.mark.timeout(600)


def load(template: str) -> LlamaCppEngine:
    file = engine_file(Settings())
    params = server_parameters(file, threads=2)
    params.chat_template, params.n_parallel, params.n_ctx = template, 1, 1024
    server = start_server(params, "model")
    loopback = LoopbackClient(server.listening_address, params.api_keys[0])
    return LlamaCppEngine(server, loopback, TokenBound(file, loopback), "reasoner", 1)


@pytest.fixture(scope="module")
def optional() -> Iterator[LlamaCppEngine]:
    engine = load(OPTIONAL)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def always() -> Iterator[LlamaCppEngine]:
    engine = load(ALWAYS)
    yield engine
    engine.close()


def generate(
    engine: LlamaCppEngine,
    sampling: Sampling = GREEDY,
    output_format: OutputFormat = PLAIN_TEXT,
    prefix: str = "",
    reasoning: str = "",
    prompt: Sequence[Message] = QUESTION,
) -> tuple[str, str, list[GeneratedCall], Finish]:
    """Return the reasoning, the text, the calls and the end of an answer."""
    *outputs, finish = engine.generate(
        prompt, prefix=prefix, sampling=sampling, cancelled=lambda: False, output_format=output_format,
        reasoning=reasoning,
    )  # fmt: skip
    assert isinstance(finish, Finish)
    assert finish.generated_tokens == sum(
        output.count for output in outputs if not isinstance(output, Finish | PromptRead)
    )
    thought = "".join(output.text for output in outputs if isinstance(output, ReasoningToken))
    text = "".join(output.text for output in outputs if isinstance(output, Token))
    return thought, text, [output for output in outputs if isinstance(output, GeneratedCall)], finish


def prompt_of(engine: LlamaCppEngine, messages: list[dict[str, str]]) -> str:
    return str(engine._loopback.request("POST", "/apply-template", {"messages": messages})["prompt"])


def test_templates_show_whether_and_how_a_model_reasons(
    engine: LlamaCppEngine, optional: LlamaCppEngine, always: LlamaCppEngine
) -> None:
    assert (engine.reasons, engine._marks) == (False, None)
    assert (optional.reasons, optional._marks) == (True, ReasoningMarks(opens=False, in_grammar=True))
    assert (always.reasons, always._marks) == (True, ReasoningMarks(opens=True, in_grammar=True))


def test_reasoning_is_apart_from_the_text(always: LlamaCppEngine) -> None:
    # Given a model that reasons
    output_format = OutputFormat(schema=SCHEMA)
    thought, text, _, finish = generate(always, output_format=output_format)
    assert (bool(thought), text, finish.reason) == (True, "", "length")
    # When another attempt continues, and closes the reasoning
    sampling = Sampling(60, temperature=0, logit_bias=biases(always))
    _, text, _, finish = generate(always, sampling, output_format, reasoning=thought.strip())
    # Then only the answer is text
    assert text.replace(" ", "") == '{"n":1}'
    assert finish.prompt_tokens == always.count(QUESTION, output_format)


def test_reasoning_that_was_cut_is_continued(always: LlamaCppEngine) -> None:
    # Given reasoning, and its beginning as another attempt gets it
    whole, _, _, _ = generate(always, Sampling(max_output_tokens=16, temperature=0, ignore_eos=True))
    assert len(whole) > 12
    # When the rest is generated
    rest, text, _, _ = generate(always, Sampling(8, temperature=0, ignore_eos=True), reasoning=whole[:12].strip())
    # Then it continues as reasoning
    assert rest
    assert text == ""


def test_a_text_after_reasoning_is_continued_as_text(optional: LlamaCppEngine) -> None:
    thought, text, _, _ = generate(optional, prefix="The answer is", reasoning="Let me think")
    assert (thought, bool(text)) == ("", True)


def test_reasoning_of_the_present_turn_is_in_the_prompt(optional: LlamaCppEngine) -> None:
    # Given an earlier message with reasoning
    plain = [*QUESTION, Message("assistant", "Hi."), Message("user", "Again.")]
    reasoned = [*QUESTION, Message("assistant", "Hi.", reasoning="A long thought"), Message("user", "Again.")]
    # Then the template writes it
    assert optional.count(reasoned) > optional.count(plain)


def test_disabled_reasoning_is_closed_in_the_prompt(optional: LlamaCppEngine) -> None:
    plain = optional.count(QUESTION)
    assert optional.count(QUESTION, OutputFormat(effort="none")) > plain
    assert optional.count(QUESTION, OutputFormat(template={"enable_thinking": False})) > plain
    thought, text, _, _ = generate(optional, output_format=OutputFormat(effort="none"))
    assert (thought, bool(text)) == ("", True)


@pytest.mark.parametrize("name", ["optional", "always"])
def test_json_follows_reasoning(name: str, request: pytest.FixtureRequest) -> None:
    # Given a model that reasons before JSON: always, or where it opens its reasoning
    engine: LlamaCppEngine = request.getfixturevalue(name)
    output_format, sampling = OutputFormat(schema=SCHEMA), Sampling(120, temperature=0, logit_bias=biases(engine))
    _, text, _, finish = generate(engine, sampling, output_format)
    # Then the text is the JSON
    assert finish.reason == "stop"
    assert text.replace(" ", "").replace("\n", "") == '{"n":1}'


def test_a_call_follows_reasoning(always: LlamaCppEngine) -> None:
    output_format = OutputFormat((TOOL,), tool_choice="required", parallel=False)
    _, text, calls, _ = generate(always, Sampling(160, temperature=0, logit_bias=biases(always)), output_format)
    assert text == ""
    assert [(call.name, call.arguments.replace(" ", "")) for call in calls] == [("look", '{"n":1}')]


@pytest.mark.parametrize("name", ["optional", "always"])
def test_json_that_was_cut_is_continued_after_its_reasoning(name: str, request: pytest.FixtureRequest) -> None:
    engine: LlamaCppEngine = request.getfixturevalue(name)
    thought, text, _, _ = generate(engine, GREEDY, OutputFormat(schema=SCHEMA), prefix='{"n"', reasoning="One.")
    assert thought == ""
    assert text.replace(" ", "").replace("\n", "") == ":1}"


def biases(engine: LlamaCppEngine) -> tuple[tuple[int, float], ...]:
    """Return biases that make a model without training close its reasoning soon."""
    tokens = engine._loopback.request("POST", "/tokenize", {"content": "</think>", "add_special": False})["tokens"]
    return tuple((int(token), 18.0) for token in dict.fromkeys(tokens))
