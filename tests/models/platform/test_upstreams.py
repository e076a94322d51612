"""Upstreams are read from the environment, and a malformed variable is reported in one line that names it."""

from decimal import Decimal

import pytest

from models.platform.errors import ConfigurationError
from models.platform.settings import Settings, load_settings
from models.platform.upstreams import Upstream, load_upstreams, upstream_variables

GROQ = {"SANGHA_UPSTREAMS": "groq", "SANGHA_UPSTREAM_GROQ_URL": "https://api.example.com/v1",
        "SANGHA_UPSTREAM_GROQ_MODELS": "big"}  # fmt: skip


def test_no_variables_are_no_upstreams():
    assert load_upstreams({}) == ()


def test_upstreams_are_read_in_the_order_of_their_names():
    environment = GROQ | {
        "SANGHA_UPSTREAMS": "Groq, corp",
        "SANGHA_UPSTREAM_GROQ_MODELS": "big, small",
        "SANGHA_UPSTREAM_CORP_URL": "http://10.0.0.1:8000/v1/",
        "SANGHA_UPSTREAM_CORP_MODELS": "meta/llama-3.1-8b",
        "SANGHA_UPSTREAM_CORP_API_KEY": "hunter2",
    }

    assert load_upstreams(environment) == (
        Upstream("groq", "https://api.example.com/v1", ("big", "small")),
        Upstream("corp", "http://10.0.0.1:8000/v1/", ("meta/llama-3.1-8b",), "hunter2"),
    )


def test_settings_have_the_upstreams_of_the_environment(monkeypatch):
    for name, value in GROQ.items():
        monkeypatch.setenv(name, value)

    assert load_settings().upstreams == (Upstream("groq", "https://api.example.com/v1", ("big",)),)


def test_variables_of_upstreams_are_read_back():
    upstreams = (
        Upstream("a", "https://a/v1", ("x", "y"), "key", "chat", 3, 8192, continues=True,
                 price_input=Decimal("0.05"), price_output=Decimal("1.5"), residency="any"),
        Upstream("b", "https://b/v1", ("z",), api="responses"),
    )  # fmt: skip

    assert load_upstreams(upstream_variables(upstreams)) == upstreams


@pytest.mark.parametrize(
    ("name", "value", "should"),
    [
        ("SANGHA_UPSTREAM_GROQ_URL", "api.example.com/v1", "https://…"),
        ("SANGHA_UPSTREAM_GROQ_URL", "https://[bad", "well-formed"),
        ("SANGHA_UPSTREAM_GROQ_URL", "https://api.example.com:port/v1", "well-formed"),
        ("SANGHA_UPSTREAM_GROQ_URL", "https://api.example.com/v1?version=2", "API's paths begin with"),
        ("SANGHA_UPSTREAM_GROQ_URL", "https://me:hunter2@api.example.com/v1", "API's paths begin with"),
        ("SANGHA_UPSTREAM_GROQ_API_KEY", "hunter2\nX-Other: 1", "without spaces"),
        ("SANGHA_UPSTREAM_GROQ_MODELS", ", ,", "should name a model"),
        ("SANGHA_UPSTREAM_GROQ_MODELS", "big, big", "names a model twice"),
        ("SANGHA_UPSTREAM_GROQ_API", "completions", "should be 'chat' or 'responses'"),
        ("SANGHA_UPSTREAM_GROQ_SLOTS", "0", "should be a number from 1 to 1024"),
        ("SANGHA_UPSTREAM_GROQ_TIMEOUT", "0", "should be a number from 1 to 600"),
        ("SANGHA_UPSTREAM_GROQ_SLOTS", "many", "should be a number from 1 to 1024"),
        ("SANGHA_UPSTREAM_GROQ_CONTEXT", "255", "should be a number from 256 to 1048576"),
        ("SANGHA_UPSTREAM_GROQ_CONTINUES", "yes", "should be 'on' or 'off'"),
        ("SANGHA_UPSTREAM_GROQ_RESIDENCY", "eu", "should be 'local' or 'any'"),
        ("SANGHA_UPSTREAMS", "groq,groq", "names an upstream twice"),
    ],
)
def test_a_malformed_variable_is_one_line_that_names_it_and_what_it_should_be(name, value, should):
    with pytest.raises(ConfigurationError, match=should) as caught:
        load_upstreams(GROQ | {name: value})

    line = str(caught.value)
    assert line.startswith(f"{name} is ")
    assert "\n" not in line
    assert "hunter2" not in line


@pytest.mark.parametrize("price", ["free", "-1", "NaN", "1e9", "0,5"])
def test_a_malformed_price_is_one_line_that_names_it(price):
    prices = {"SANGHA_UPSTREAM_GROQ_PRICE_INPUT": price, "SANGHA_UPSTREAM_GROQ_PRICE_OUTPUT": "1"}

    with pytest.raises(ConfigurationError, match=f"^SANGHA_UPSTREAM_GROQ_PRICE_INPUT is '{price}': it should"):
        load_upstreams(GROQ | prices)


@pytest.mark.parametrize(("ending", "unset"), [("INPUT", "OUTPUT"), ("OUTPUT", "INPUT")])
def test_one_price_without_the_other_is_rejected(ending, unset):
    with pytest.raises(ConfigurationError, match=f"^SANGHA_UPSTREAM_GROQ_PRICE_{unset} is unset, but"):
        load_upstreams(GROQ | {f"SANGHA_UPSTREAM_GROQ_PRICE_{ending}": "0.5"})


def test_only_chat_completions_continue():
    with pytest.raises(ConfigurationError, match=r"^SANGHA_UPSTREAM_GROQ_CONTINUES is 'on': it should be 'off'"):
        load_upstreams(GROQ | {"SANGHA_UPSTREAM_GROQ_CONTINUES": "on", "SANGHA_UPSTREAM_GROQ_API": "responses"})


@pytest.mark.parametrize("name", ["agent", "sangha", "groq_batch"])
def test_a_reserved_name_is_rejected(name):
    with pytest.raises(ConfigurationError, match=f"^SANGHA_UPSTREAMS names '{name}': a name is not agent or sangha"):
        load_upstreams({"SANGHA_UPSTREAMS": name})


@pytest.mark.parametrize(
    ("url", "residency", "local"),
    [
        ("https://api.example.com/v1", None, False),
        ("http://10.0.0.1:8000/v1", None, True),
        ("http://[::1]:8000/v1", None, True),
        ("http://gpu:8000/v1", None, True),
        ("http://8.8.8.8/v1", None, False),
        ("https://llm.corp.example/v1", "local", True),
        ("http://tunnel:8000/v1", "any", False),
    ],
)
def test_residency_or_else_the_address_decides_whether_an_upstream_is_local(url, residency, local):
    assert Upstream("x", url, ("m",), residency=residency).is_local is local


def test_an_impossible_name_is_rejected():
    with pytest.raises(ConfigurationError, match=r"^SANGHA_UPSTREAMS names 'my-groq': a name begins with a letter"):
        load_upstreams({"SANGHA_UPSTREAMS": "my-groq"})


@pytest.mark.parametrize("ending", ["URL", "MODELS"])
def test_an_upstream_without_a_required_variable_is_one_line_that_names_it(ending):
    environment = {name: value for name, value in GROQ.items() if not name.endswith(ending)}

    with pytest.raises(
        ConfigurationError, match=f"^SANGHA_UPSTREAM_GROQ_{ending} is unset, but SANGHA_UPSTREAMS names 'groq'$"
    ):
        load_upstreams(environment)


def test_a_variable_of_no_upstream_is_rejected():
    with pytest.raises(ConfigurationError, match=r"^SANGHA_UPSTREAM_GROK_URL is set, but SANGHA_UPSTREAMS names no"):
        load_upstreams(GROQ | {"SANGHA_UPSTREAM_GROK_URL": "https://x"})


@pytest.mark.parametrize(("old", "new"), [("URL", "URL"), ("API_KEY", "API_KEY"), ("MODEL", "MODELS")])
def test_a_variable_of_an_earlier_version_is_rejected_with_the_one_that_replaces_it(old, new):
    with pytest.raises(ConfigurationError, match=f"^SANGHA_FALLBACK_{old} is no longer read") as caught:
        load_upstreams({f"SANGHA_FALLBACK_{old}": "x"})

    assert f"SANGHA_UPSTREAM_CORP_{new}" in str(caught.value)
    assert "SANGHA_UPSTREAMS=corp" in str(caught.value)


def test_the_api_key_is_never_shown():
    upstream = Upstream("groq", "https://api.example.com/v1", ("big",), "hunter2")

    assert "hunter2" not in repr(Settings(upstreams=(upstream,)))
