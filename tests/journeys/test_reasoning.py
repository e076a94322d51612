"""Reasoning reaches unmodified clients apart from the answer, and survives a killed worker."""

from bench.harness.sse import scripted_text
from bench.harness.waiting import wait_until
from pipelines.chat.transcript import REASONING_DELTA
from tests.journeys.stack import ON_REDIS, AccountOwner, Installation, openai_client

THOUGHTS, TOKENS = 40, 10
SCRIPT = f"tokens={TOKENS},reasoning={THOUGHTS},rate=40"
REASONING = "".join(f"r{number} " for number in range(THOUGHTS))


@ON_REDIS
def test_reasoning_survives_a_killed_worker(stack: Installation, user: AccountOwner):
    # Given a worker that is killed within the reasoning
    stack.start_workers(2, SCRIPT)
    follower = user.stream()
    wait_until(lambda: any(event.type == REASONING_DELTA for event in follower.events), what="reasoning")
    runner = stack.runner(follower.job_id)
    runner.kill()
    stack.release_jobs(runner)
    # When another one continues
    follower.end()
    # Then the stream and the response have all of it, once
    deltas = [event.json()["delta"] for event in follower.events if event.type == REASONING_DELTA]
    assert "".join(deltas) == REASONING
    stored = user.get(f"/v1/responses/{follower.response_id}")
    assert [item["type"] for item in stored["output"]] == ["reasoning", "message"]
    assert stored["output"][0]["content"][0]["text"] == REASONING
    # And it is billed with the answer
    assert stored["usage"]["output_tokens"] == THOUGHTS + TOKENS
    assert stored["usage"]["output_tokens_details"]["reasoning_tokens"] == THOUGHTS
    assert stack.rows("SELECT attempt FROM jobs WHERE id = %s", follower.job_id) == [{"attempt": 2}]


@ON_REDIS
def test_openais_client_reads_reasoning_and_log_probabilities(stack: Installation, user: AccountOwner):
    stack.start_workers(1, f"tokens={TOKENS},reasoning=3,rate=0")
    client = openai_client(stack, user)
    # When OpenAI's helpers stream a response
    with client.responses.stream(
        model="default", input="hello", top_logprobs=2, include=["message.output_text.logprobs"]
    ) as stream:
        for _ in stream:
            pass
        response = stream.get_final_response()
    # Then they assemble the reasoning, the text and its log probabilities
    reasoning, message = response.output
    assert (reasoning.type, message.type) == ("reasoning", "message")
    assert reasoning.content is not None
    assert reasoning.content[0].text == "r0 r1 r2 "
    part = message.content[0]
    assert part.type == "output_text"
    assert part.text == scripted_text(TOKENS)
    assert part.logprobs is not None
    assert [(entry.token, entry.logprob) for entry in part.logprobs] == [(f"w{n} ", 0.0) for n in range(TOKENS)]
    # And so does a chat completion, streamed or not
    messages = [{"role": "user", "content": "hello"}]
    completion = client.chat.completions.create(model="default", messages=messages, logprobs=True)  # type: ignore[arg-type]
    [choice] = completion.choices
    assert choice.message.model_extra == {"reasoning_content": "r0 r1 r2 "}
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert len(choice.logprobs.content) == TOKENS
    chunks = client.chat.completions.create(model="default", messages=messages, stream=True)  # type: ignore[call-overload]
    extras = [chunk.choices[0].delta.model_extra or {} for chunk in chunks if chunk.choices]
    assert "".join(extra.get("reasoning_content", "") for extra in extras) == "r0 r1 r2 "
