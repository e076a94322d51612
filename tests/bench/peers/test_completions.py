"""Given a server of chat completions, when streams of it are read, then their text and their end are known."""

from bench.harness.endpoint.client import scripted_endpoint
from bench.harness.sse import scripted_text
from bench.peers.completions import complete, complete_many, content_of
from bench.peers.litellm_proxy import FALLBACK, MODEL, configuration


def test_streams_that_end_and_streams_that_break() -> None:
    with scripted_endpoint(tokens=20, rate=200) as endpoint:
        whole = complete(endpoint.address, "", "cloud-1", "hello")
        endpoint.change(fault="drop", after=5)
        broken = complete_many(endpoint.address, "", "cloud-1", 3)

    assert (whole.text, whole.completed) == (scripted_text(20), True)
    assert whole.first is not None
    assert {(each.text, each.completed) for each in broken} == {(scripted_text(5), False)}


def test_an_error_and_an_incomplete_event_have_no_text() -> None:
    events = b'data: {"choices":[{"delta":{"content":"w0 "}}]}\n\ndata: {"error": {"code": 500}}\n\ndata: {"choic'

    assert content_of(events) == "w0 "


def test_the_proxy_has_a_primary_and_a_fallback() -> None:
    with scripted_endpoint() as primary, scripted_endpoint() as fallback:
        values = configuration(primary, fallback, "cloud-1")

    models = values["model_list"]
    assert isinstance(models, list)
    assert [(each["model_name"], each["litellm_params"]["api_base"]) for each in models] == [
        (MODEL, primary.url),
        (FALLBACK, fallback.url),
    ]
