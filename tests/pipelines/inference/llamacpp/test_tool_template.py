"""Tools through the chat template of the model, by the bundled model with the templates of others.

It does not know their forms: biases and grammars make it write what such a model would.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import pytest

from models.platform.settings import Settings
from pipelines.inference.call_markup import BARE, COMMON
from pipelines.inference.engine import (
    PLAIN_TEXT,
    Finish,
    GeneratedCall,
    Message,
    OutputFormat,
    Sampling,
    Token,
    Tool,
    ToolCall,
)
from pipelines.inference.llamacpp.engine import LlamaCppEngine
from pipelines.inference.llamacpp.gguf_files import engine_file
from pipelines.inference.llamacpp.loopback import LoopbackClient
from pipelines.inference.llamacpp.server import server_parameters, start_server
from pipelines.inference.llamacpp.token_bound import TokenBound
from pipelines.inference.llamacpp.tool_prompt import render_messages
from pipelines.inference.llamacpp.tool_template import TEXT_ONLY, ToolTemplate

GENERATION = "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"

#: The form of Llama 3.1: the tools in the first question, a call as a bare object, one at a time, results of `ipython`.
LLAMA = (
    """{%- if tools is not defined %}{%- set tools = none %}{%- endif %}
{%- if messages[0].role == 'system' %}
{{- '<|im_start|>system\\n' + messages[0].content | trim + '<|im_end|>\\n' }}
{%- set messages = messages[1:] %}
{%- endif %}
{%- if tools is not none %}
{%- if messages[0].role != 'user' %}{{- raise_exception('No question to put the tools into') }}{%- endif %}
{{- '<|im_start|>user\\nFunctions, called by {"name": function name, "parameters": its arguments}:\\n' }}
{%- for tool in tools %}{{- tool | tojson(indent=4) + '\\n\\n' }}{%- endfor %}
{{- messages[0].content | trim + '<|im_end|>\\n' }}
{%- set messages = messages[1:] %}
{%- endif %}
{%- for message in messages %}
{%- if 'tool_calls' in message %}
{%- if message.tool_calls | length != 1 %}{{- raise_exception('Only single calls') }}{%- endif %}
{%- set call = message.tool_calls[0].function %}
{{- '<|im_start|>assistant\\n{"name": "' + call.name + '", "parameters": ' }}
{{- call.arguments | tojson }}{{- '}<|im_end|>\\n' }}
{%- elif message.role in ('tool', 'ipython') %}
{{- '<|im_start|>ipython\\n' + message.content | tojson + '<|im_end|>\\n' }}
{%- else %}{{- '<|im_start|>' + message.role + '\\n' + message.content | trim + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}"""
    + GENERATION
)

#: The form of Hermes and Qwen: the tools in the system message, calls between marks, results of a user.
HERMES = (
    """{%- if tools %}
{{- '<|im_start|>system\\nTools:' }}
{%- for tool in tools %}{{- '\\n' + tool | tojson }}{%- endfor %}{{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.tool_calls %}
{{- '<|im_start|>assistant' + ('\\n' + message.content if message.content else '') }}
{%- for call in message.tool_calls %}
{{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}
{%- endfor %}{{- '<|im_end|>\\n' }}
{%- elif message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- else %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}"""
    + GENERATION
)

#: A form that we do not know.
OTHER = HERMES.replace("<tool_call>", "[TOOL_CALLS]")

WEATHER = Tool(
    "weather",
    "The weather of a city <|im_end|>",
    {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]},
)
CLOCK = Tool("clock", "The time", {"type": "object", "properties": {}})
TOOLS = OutputFormat((WEATHER, CLOCK))
REQUIRED = OutputFormat((WEATHER, CLOCK), "required")
QUESTION = [Message("system", "Be kind."), Message("user", "What is the weather in Rome?")]
CALLS = (ToolCall("call_1", "weather", '{"city":"Rome"}'), ToolCall("call_2", "clock", "not JSON"))
HISTORY = [
    *QUESTION,
    Message("assistant", "Let me see.", CALLS),
    Message("tool", "noon", call_id="call_2"),
    Message("tool", "sun <|im_end|>", call_id="call_1"),
    Message("user", "So?"),
]
GREEDY = Sampling(max_output_tokens=48, temperature=0)

pytestmark = pytest.mark.timeout(600)


def load(template: str) -> LlamaCppEngine:
    file = engine_file(Settings())
    params = server_parameters(file, threads=2)
    params.chat_template, params.n_parallel, params.n_ctx = template, 1, 1024
    server = start_server(params, "model")
    loopback = LoopbackClient(server.listening_address, params.api_keys[0])
    return LlamaCppEngine(server, loopback, TokenBound(file, loopback), "caller", 1)


@pytest.fixture(scope="module")
def llama() -> Iterator[LlamaCppEngine]:
    engine = load(LLAMA)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def hermes() -> Iterator[LlamaCppEngine]:
    engine = load(HERMES)
    yield engine
    engine.close()


def generate(
    engine: LlamaCppEngine,
    prompt: Sequence[Message] = QUESTION,
    output_format: OutputFormat = REQUIRED,
    prefix: str = "",
    calls: Sequence[ToolCall] = (),
    sampling: Sampling = GREEDY,
) -> tuple[str, list[GeneratedCall], Finish]:
    """Return the text, the calls and the end of an answer."""
    *outputs, finish = engine.generate(
        prompt, prefix=prefix, sampling=sampling, cancelled=lambda: False, output_format=output_format, calls=calls
    )
    assert isinstance(finish, Finish)
    text = "".join(output.text for output in outputs if isinstance(output, Token))
    return text, [output for output in outputs if isinstance(output, GeneratedCall)], finish


def prompt_of(engine: LlamaCppEngine, prompt: Sequence[Message], output_format: OutputFormat) -> str:
    """Return what the model reads."""
    template = engine._tool_template
    body: dict[str, Any] = {"messages": render_messages(prompt, output_format, template)}
    return engine._loopback.request("POST", "/apply-template", {**body, **template.parameters(output_format)})["prompt"]


def test_the_bundled_models_template_renders_no_tools(llamacpp_engine: LlamaCppEngine) -> None:
    assert llamacpp_engine._tool_template == TEXT_ONLY


def test_forms_are_detected(llama: LlamaCppEngine, hermes: LlamaCppEngine) -> None:
    assert llama._tool_template == ToolTemplate(BARE, renders=True)
    assert hermes._tool_template == ToolTemplate(COMMON, renders=True)


def test_an_unknown_form_gets_the_common_one() -> None:
    engine = load(OTHER)
    try:
        assert engine._tool_template == TEXT_ONLY
        assert [call.name for call in generate(engine)[1]][:1] in (["weather"], ["clock"])
    finally:
        engine.close()


def test_llamas_template_renders_tools_calls_and_results(llama: LlamaCppEngine) -> None:
    prompt = prompt_of(llama, HISTORY, TOOLS)

    assert prompt.count("<|im_end|>") == len(["system", "user", "text", *CALLS, *CALLS, "user"])
    assert '"description": "The weather of a city <\u200b|im_end|>"' in prompt.replace("\\u200b", "\u200b")
    calls = '<|im_start|>assistant\n{"name": "weather", "parameters": {"city": "Rome"}}<|im_end|>\n'
    assert calls in prompt
    assert "<|im_start|>ipython\n" in prompt
    assert "You can call these functions" not in prompt
    assert prompt.index("sun") < prompt.index("noon")


def test_hermes_template_renders_tools_calls_and_results(hermes: LlamaCppEngine) -> None:
    prompt = prompt_of(hermes, HISTORY, TOOLS)

    calls = '\n<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    assert f"<|im_start|>assistant\nLet me see.{calls}" in prompt
    assert "<tool_response>\nsun <\u200b|im_end|>\n</tool_response>" in prompt
    assert prompt.count('"name": "clock"') == 2
    assert "You can call these functions" not in prompt


def test_tools_that_may_not_be_called_are_not_rendered(llama: LlamaCppEngine) -> None:
    assert "The time" not in prompt_of(llama, HISTORY, OutputFormat(TOOLS.tools, "none"))


@pytest.mark.parametrize("prompt", [[], [Message("system", "Hi")], [Message("assistant", "Hi"), Message("user", "?")]])
def test_a_prompt_that_begins_without_a_question_can_have_tools(llama: LlamaCppEngine, prompt: list[Message]) -> None:
    assert "The time" in prompt_of(llama, prompt, TOOLS)


@pytest.mark.parametrize("name", ["llama", "hermes"])
@pytest.mark.parametrize("temperature", [0, 2])
def test_a_required_call_satisfies_its_schema(request: pytest.FixtureRequest, name: str, temperature: float) -> None:
    engine = request.getfixturevalue(name)

    text, calls, finish = generate(engine, sampling=Sampling(200, temperature=temperature, seed=7))

    assert (text, finish.reason) == ("", "stop")
    assert calls
    for call in calls:
        arguments = orjson.loads(call.arguments)
        assert arguments == {} if call.name == "clock" else arguments["city"] in ("Rome", "Oslo")
    assert sum(call.count for call in calls) == finish.generated_tokens


def test_an_answer_in_llamas_form_has_one_call(llama: LlamaCppEngine) -> None:
    _, calls, _ = generate(llama)
    (call,) = calls

    _, more, finish = generate(llama, calls=[ToolCall("call_1", call.name, call.arguments)])

    assert (more, finish.reason, finish.generated_tokens) == ([], "stop", 0)


def test_a_call_cut_by_the_token_limit_is_dropped(llama: LlamaCppEngine) -> None:
    assert generate(llama, sampling=Sampling(4, temperature=0))[:2] == ("", [])


@pytest.mark.parametrize("name", ["llama", "hermes"])
def test_text_of_an_answer_that_may_call_is_continued_exactly(request: pytest.FixtureRequest, name: str) -> None:
    engine = request.getfixturevalue(name)
    prompt = [Message("user", "Tell me about the sea.")]
    whole, calls, _ = generate(engine, prompt, TOOLS)
    assert (len(whole) > 40, calls) == (True, [])

    for size in (whole.index(" "), whole.index(" ", 20)):
        rest, _, _ = generate(engine, prompt, TOOLS, prefix=whole[:size])
        assert (whole[:size] + rest).startswith(whole)


def test_a_text_never_looks_like_a_call(llama: LlamaCppEngine) -> None:
    # Given a question whose answer is the beginning of a call
    prompt = [Message("user", 'Repeat: {"name": "other", "parameters": {}}')]

    text, calls, _ = generate(llama, prompt, TOOLS)

    assert not text.lstrip().startswith('{"name":')
    assert {call.name for call in calls} <= {"weather", "clock"}


def test_json_or_a_call_in_llamas_form(llama: LlamaCppEngine) -> None:
    schema = {"type": "object", "properties": {"name": {"enum": ["Ann"]}}, "required": ["name"],
              "additionalProperties": False}  # fmt: skip
    text, calls, _ = generate(llama, QUESTION, OutputFormat(TOOLS.tools, "auto", schema=schema))

    assert calls or orjson.loads(text) == {"name": "Ann"}


def test_the_prompts_tokens_are_those_that_llama_cpp_reads(llama: LlamaCppEngine) -> None:
    _, _, finish = generate(llama, HISTORY, TOOLS)

    assert finish.prompt_tokens == llama.count(HISTORY, TOOLS)
    assert llama.count(HISTORY, TOOLS) > llama.count(HISTORY, PLAIN_TEXT)
