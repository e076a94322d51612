"""Parameters of sampling and reasoning are stored, or rejected if the engine does not honour them."""

import pytest

from models.platform.errors import InvalidRequest
from models.platform.settings import Settings
from models.platform.upstreams import Upstream
from pipelines.chat.prompt import max_logprob_tokens
from pipelines.requests.chat.completion_request import CreateChatCompletion, chat_turn, chat_turns
from pipelines.requests.serving import Serving
from pipelines.requests.turn_request import CreateResponse, new_turn

LLAMACPP = Serving.of(Settings())
SCRIPTED = Serving.of(Settings(engine="scripted"))
OPENAI = Serving.of(Settings(engine="openai", upstreams=(Upstream("x", "https://api.openai.com/v1", ("gpt",)),)))
VLLM = Serving.of(Settings(engine="openai", upstreams=(Upstream("x", "https://vllm.example.com/v1", ("m",)),)))

EVERYTHING = {
    "temperature": 0.5, "top_p": 0, "presence_penalty": 1.5, "frequency_penalty": -0.5, "top_logprobs": 3, "top_k": 40,
    "min_p": 0.1, "typical_p": 0.9, "repetition_penalty": 1.1, "logit_bias": {"7": -100}, "min_tokens": 2,
    "ignore_eos": True, "chat_template_kwargs": {"enable_thinking": False, "style": "short"},
}  # fmt: skip


def response_request(settings=LLAMACPP, **body):
    return new_turn(CreateResponse.model_validate({"input": "hello", **body}), settings).request


def chat_request(settings=LLAMACPP, **body):
    messages = [{"role": "user", "content": "hello"}]
    return chat_turn(CreateChatCompletion.model_validate({"messages": messages, **body}), settings).request


def stored(request, *names):
    return {name: request[name] for name in names if name in request}


@pytest.mark.parametrize(
    ("n", "tokens", "accepted"), [(1, 1000, True), (1, 1001, False), (4, 250, True), (4, 251, False)]
)
def test_answers_with_more_log_probabilities_than_a_request_gets_are_rejected(n, tokens, accepted):
    messages = [{"role": "user", "content": "hello"}]
    body = {"messages": messages, "logprobs": True, "top_logprobs": 19, "n": n, "max_completion_tokens": tokens}

    def convert():
        return chat_turns(CreateChatCompletion.model_validate(body), LLAMACPP)

    if accepted:
        assert len(convert()) == n
    else:
        with pytest.raises(InvalidRequest) as error:
            convert()
        assert error.value.param == "max_completion_tokens"
        assert f"The maximum is 20,000: use at most {1000 // n:,} tokens." in error.value.message


def test_the_choices_of_a_request_share_its_log_probabilities():
    body = {"messages": [{"role": "user", "content": "hello"}], "logprobs": True, "n": 4}

    turns = chat_turns(CreateChatCompletion.model_validate(body), LLAMACPP)

    assert [max_logprob_tokens(turn.request) for turn in turns] == [5000] * 4


@pytest.mark.parametrize("settings", [LLAMACPP, VLLM])
def test_all_parameters_of_either_api_are_stored(settings):
    assert stored(response_request(settings, **EVERYTHING), *EVERYTHING) == EVERYTHING
    assert stored(chat_request(settings, **EVERYTHING, logprobs=True), *EVERYTHING) == EVERYTHING


def test_parameters_that_are_not_set_are_not_stored():
    names = [name for name in EVERYTHING if name not in ("temperature", "top_p")]
    assert stored(response_request(), *names, "logprobs", "reasoning") == {}


@pytest.mark.parametrize(
    ("settings", "parameters", "param"),
    [
        (SCRIPTED, {"logit_bias": {"7": 1}}, "logit_bias"),
        (OPENAI, {"top_k": 40}, "top_k"),
        (OPENAI, {"min_p": 0.1}, "min_p"),
        (OPENAI, {"repeat_penalty": 1.1}, "repetition_penalty"),
        (OPENAI, {"min_tokens": 2}, "min_tokens"),
        (OPENAI, {"ignore_eos": True}, "ignore_eos"),
        (OPENAI, {"enable_thinking": False}, "chat_template_kwargs"),
    ],
)
def test_parameters_that_the_engine_does_not_honour_are_rejected_by_name(settings, parameters, param):
    for convert in (response_request, chat_request):
        with pytest.raises(InvalidRequest) as caught:
            convert(settings, **parameters)
        assert (caught.value.param, caught.value.code) == (param, "unsupported_parameter")


@pytest.mark.parametrize("settings", [LLAMACPP, SCRIPTED, OPENAI, VLLM])
def test_values_without_effect_are_accepted_by_every_engine(settings):
    neutral = {
        "presence_penalty": 0, "frequency_penalty": 0.0, "repetition_penalty": 1, "top_k": 0, "min_p": 0,
        "typical_p": 1, "logit_bias": {}, "min_tokens": 0, "ignore_eos": False, "top_logprobs": 0,
    }  # fmt: skip
    assert response_request(settings, **neutral)
    assert chat_request(settings, **neutral, logprobs=False)


@pytest.mark.parametrize(
    "parameters",
    [
        {"logit_bias": {str(number): 1 for number in range(301)}},
        {"logit_bias": {"seven": 1}},
        {"logit_bias": {"7": 101}},
        {"top_logprobs": 21},
        {"presence_penalty": 2.5},
        {"chat_template_kwargs": {"messages": "x"}},
        {"chat_template_kwargs": {"enable_thinking": "no"}},
        {"chat_template_kwargs": {"a": {"b": 1}}},
        {"chat_template_kwargs": {f"a{number}": 1 for number in range(17)}},
    ],
)
def test_parameters_are_bounded(parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        CreateResponse.model_validate({"input": "x", **parameters})


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"repetition_penalty": 1.1, "repeat_penalty": 1.2}, "repeat_penalty"),
        ({"min_tokens": 9, "max_output_tokens": 8}, "min_tokens"),
        ({"min_tokens": 9, "text": {"format": {"type": "json_object"}}}, "min_tokens"),
        ({"ignore_eos": True, "tools": [{"type": "function", "name": "look"}]}, "ignore_eos"),
    ],
)
def test_parameters_that_contradict_each_other_are_rejected(parameters, param):
    with pytest.raises(InvalidRequest) as caught:
        response_request(**parameters)
    assert caught.value.param == param


def test_log_probabilities_are_asked_for_by_include_or_by_alternatives():
    names = ("logprobs", "top_logprobs")
    asked = response_request(include=["message.output_text.logprobs"])
    assert stored(asked, *names) == {"logprobs": True, "top_logprobs": 0}
    assert stored(response_request(top_logprobs=2), *names) == {"logprobs": True, "top_logprobs": 2}
    assert stored(chat_request(logprobs=True), *names) == {"logprobs": True, "top_logprobs": 0}
    assert stored(chat_request(logprobs=False, top_logprobs=0), "logprobs") == {}


@pytest.mark.parametrize("effort", ["none", "minimal", "low", "medium", "high", "xhigh", "max"])
def test_every_effort_is_accepted_under_the_name_of_either_api(effort):
    expected = {"effort": effort, "summary": None}
    assert response_request(reasoning={"effort": effort})["reasoning"] == expected
    assert chat_request(reasoning_effort=effort)["reasoning"] == expected
    assert chat_request(reasoning={"effort": effort})["reasoning"] == expected


def test_disabled_reasoning_is_the_effort_none():
    assert chat_request(reasoning={"enabled": False})["reasoning"]["effort"] == "none"
    assert response_request(enable_thinking=False)["chat_template_kwargs"] == {"enable_thinking": False}


def test_reasoning_of_a_message_is_an_item_before_it():
    # Given an assistant's message with reasoning, under either name
    for name in ("reasoning_content", "reasoning"):
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", name: "because"}]
        body = CreateChatCompletion.model_validate({"messages": [*messages, {"role": "user", "content": "c"}]})
        # Then it is stored before the message
        items = chat_turn(body, SCRIPTED).input
        assert [item["type"] for item in items] == ["message", "reasoning", "message", "message"]
        assert items[1]["content"] == [{"type": "reasoning_text", "text": "because"}]
    # And reasoning without a text is not
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
    turn = new_turn(CreateResponse.model_validate({"input": [item, {"role": "user", "content": "c"}]}), SCRIPTED)
    assert [item["type"] for item in turn.input] == ["message"]
