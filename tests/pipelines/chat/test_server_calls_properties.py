"""Whatever a turn calls and wherever its attempts crash, each output is in the answer once, and in the next prompt."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

import orjson
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from models.jobs.attempt_context import WaitForChildren
from models.jobs.jobs import NewJob
from models.journal.writer import Journal
from pipelines.agents import approvals
from pipelines.agents.listed_tool import ListedTool
from pipelines.agents.turn_tools import Child, ServerTool, TurnTools
from pipelines.chat import turn
from pipelines.inference.engine import Finish, GeneratedCall, Token
from tests.pipelines.chat.conftest import FakeEngine
from tests.pipelines.chat.test_calling import NOW, read_events
from tests.pipelines.chat.test_server_calls import EMPTY, Loop

#: Attempts of one turn, by which it must have ended.
MOST_ATTEMPTS = 60


@dataclass(frozen=True)
class Call:
    """A call of a script: what a person decides where one is asked, and how often nobody knows its outcome.

    decisions  of the first request for approval, if its tool asks, and of the ones in doubt
    """

    tool: str
    doubts: int = 0
    decisions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """What the engine generates at once: words, calls that the server runs, and perhaps one of the caller's."""

    words: int = 0
    calls: tuple[Call, ...] = ()
    client_call: bool = False


CALLS = st.builds(
    Call,
    tool=st.sampled_from(["quiet", "asking"]),
    doubts=st.sampled_from([0, 0, 0, 1, 2]),
    decisions=st.lists(st.sampled_from(["approved", "approved", "denied", "expired"]), min_size=3, max_size=3).map(
        tuple
    ),
)
STEPS = st.builds(
    Step,
    words=st.integers(0, 3),
    calls=st.lists(CALLS, min_size=1, max_size=3).map(tuple),
    client_call=st.sampled_from([False, False, False, True]),
)


class Crash(BaseException):
    """The worker dies here."""


@dataclass
class Crashes:
    """Where attempts crash: at the numbers of points that are passed, before or after a write or a commit."""

    at: frozenset[int]
    passed: int = field(default=0)

    def point(self) -> None:
        self.passed += 1
        if self.passed in self.at:
            raise Crash


class ScriptEngine(FakeEngine):
    """Plays the steps of a script, and continues each from where its journal ends."""

    def __init__(self, script: list[Step], point) -> None:
        super().__init__()
        self.script, self.point = script, point
        self.prompts_by_step: dict[int, list] = {}

    def outputs_of(self, step: int) -> list:
        if step >= len(self.script):
            return [Token("done ", 1)]
        words = [Token(f"s{step}w{number} ", 1) for number in range(self.script[step].words)]
        calls = [GeneratedCall(f"shop__{call.tool}", arguments(step, number), 2)
                 for number, call in enumerate(self.script[step].calls)]  # fmt: skip
        return [*words, *calls, *([GeneratedCall("now", "{}", 1)] if self.script[step].client_call else [])]

    def generate(self, prompt, *, prefix, sampling, cancelled, calls=(), **options) -> Iterator:
        made = [orjson.loads(call.arguments) for message in prompt for call in message.calls]
        step = max((each["step"] + 1 for each in made), default=0)
        self.prompts_by_step[step] = prompt
        outputs = self.outputs_of(step)
        words = sum(isinstance(each, Token) for each in outputs)
        for output in outputs[words + len(calls) if calls else prefix.count(" ") :]:
            self.point()
            yield output
        yield Finish("stop", self.count(prompt), 0, 0)


def arguments(step: int, number: int) -> str:
    return f'{{"step":{step},"number":{number}}}'


class ScriptedLoop(Loop):
    """Runs a script to its end through crashes. `executed` counts the executions of each item."""

    def __init__(self, harness, script: list[Step], crashes: Crashes, *, waits: bool) -> None:
        super().__init__(harness)
        self.script, self.crashes = script, crashes
        self.options = {"waits_for_approval": waits}
        self.executed: Counter[str] = Counter()
        self.requested: Counter[str] = Counter()

    def load_tools(self, _connection, _attempt, response, _agent, _step):
        policies = {"quiet": "never", "asking": "always" if self.options["waits_for_approval"] else "never"}
        tools = [ServerTool("shop", ListedTool(name, name, EMPTY), policy) for name, policy in policies.items()]
        functions = [{"type": "function", "name": name, "description": "", "parameters": EMPTY} for name in policies]
        group = {"type": "namespace", "name": "shop", "description": "", "tools": functions}
        request = {**response.request, "tools": [*response.request.get("tools", []), group]}
        by_function = {f"shop__{each.tool.name}": each for each in tools}
        return TurnTools(request, by_function, make_child=partial(self._child, response), **self.options)

    def _child(self, response, _connection, item, wait):
        if item["type"] == "mcp_approval_request":
            return approvals.gate(response, item, wait)
        arguments = {"response_id": response.id, "item_id": item["id"], "arguments": item["arguments"]}
        key = f"tool_call:{item['id']}:{wait.get('approval_id')}"
        return Child(NewJob("tool.call", response.account_id, arguments, id=wait["job_id"], unique_key=key))

    def finish(self, engine, started) -> None:
        for _ in range(MOST_ATTEMPTS):
            if self.attempt_once(engine, started):
                return
            for job in self.children_of(started):
                if not job.ended:
                    self._end(job)
        pytest.fail("the turn has not ended")

    def attempt_once(self, engine, started) -> bool:
        """Run an attempt until it ends, waits or crashes. Returns whether the turn has ended."""
        attempt = self.harness.attempt(started)
        try:
            outcome = turn.run(engine, attempt, load_tools=self.load_tools)
            self.crashes.point()
        except Crash:
            self.harness.crash_worker(attempt)
            return False
        if isinstance(outcome, WaitForChildren):
            self.wait(attempt, outcome)
            return False
        self.harness.settle(attempt, outcome)
        return True

    def _end(self, job) -> None:
        if job.kind == "approval.wait":
            self.answer(job.id, status=self._decision(job), text=None)
            return
        item, doubts = job.arguments["item_id"], self._call(job.arguments["arguments"]).doubts
        self.executed[item] += 1
        if self.executed[item] <= doubts:
            self.answer(job.id, in_doubt=True)
        else:
            self.answer(job.id, f"output of {job.arguments['arguments']}")

    def _decision(self, job) -> str:
        with self.harness.database.connection() as connection:
            row = connection.execute("SELECT arguments FROM approvals WHERE id = %s",
                                     (job.arguments["approval_id"],)).fetchone()  # fmt: skip
        text = row["arguments"]
        self.requested[text] += 1
        return self._call(text).decisions[min(self.requested[text], 3) - 1]

    def _call(self, text: str) -> Call:
        place = orjson.loads(text)
        return self.script[place["step"]].calls[place["number"]]


def expected_call(call: Call, *, waits: bool) -> tuple[int, bool]:
    """Return how often a call is executed, and whether it has an output."""
    decisions = iter(call.decisions)
    if waits and call.tool == "asking" and next(decisions) != "approved":
        return 0, False
    for executions in range(1, call.doubts + 1):
        if not waits or next(decisions, "approved") != "approved":
            return executions, False
    return call.doubts + 1, True


SCRIPT = [Step(1, (Call("quiet"), Call("asking", 1, ("approved", "approved", "denied")))), Step(0, (Call("quiet"),))]


@given(
    script=st.lists(STEPS, min_size=1, max_size=3),
    crashes=st.frozensets(st.integers(1, 60), max_size=8),
    waits=st.booleans(),
)
@example(script=SCRIPT, crashes=frozenset(range(1, 40, 3)), waits=True)
@example(script=[Step(0, (Call("quiet", 2, ("approved",) * 3),))], crashes=frozenset(), waits=True)
@effort(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_crashes_change_nothing_in_the_answer(harness, monkeypatch, script, crashes, waits):
    # Given a script that ends with the first step of which the caller runs a call
    ending = next((number for number, step in enumerate(script) if step.client_call), None)
    script = script if ending is None else script[: ending + 1]
    points = Crashes(crashes)
    engine = ScriptEngine(script, points.point)
    loop = ScriptedLoop(harness, script, points, waits=waits)
    started = harness.start("go", tools=[NOW])

    # When
    with monkeypatch.context() as patch:
        for name in ("write", "write_atomically", "write_text"):
            patch.setattr(Journal, name, crashing(getattr(Journal, name), points))
        loop.finish(engine, started)

    # Then the journal is contiguous, and has each item once and in its place
    stored, events = loop.stored(started), read_events(harness, started)
    items = [item for item in stored.output if item["type"] != "mcp_list_tools"]
    assert [payload["sequence_number"] for _, payload in events] == list(range(len(events)))
    for type_ in ("response.output_item.added", "response.output_item.done"):
        placed = [(payload["output_index"], payload["item"]["id"]) for each, payload in events if each == type_]
        assert sorted(placed) == [(number, item["id"]) for number, item in enumerate(items)]
    assert len({item["id"] for item in items}) == len(items)

    # Then each call was executed as often as a person has said, and has its output
    calls = {(step, number): call for step, each in enumerate(script) for number, call in enumerate(each.calls)}
    by_arguments = {item["arguments"]: item for item in items if item["type"] == "mcp_call"}
    assert len(by_arguments) == sum(item["type"] == "mcp_call" for item in items) == len(calls)
    for place, call in calls.items():
        item, (executions, has_output) = by_arguments[arguments(*place)], expected_call(call, waits=waits)
        assert loop.executed[item["id"]] == executions
        assert item["status"] == ("completed" if has_output else "failed")
        assert item["output"] == (f"output of {arguments(*place)}" if has_output else None)

    # Then each step has read all outputs before it, and the usage is the sum of the steps
    for step, prompt in engine.prompts_by_step.items():
        read = [message.content for message in prompt if message.role == "tool"]
        assert len(read) == sum(len(each.calls) for each in script[:step])
        made = [{orjson.loads(call.arguments)["step"] for call in message.calls} for message in prompt]
        assert all(len(steps) <= 1 for steps in made)
        expected = [by_arguments[arguments(*place)] for place in calls if place[0] < step]
        assert sorted(text for text in read if text.startswith("output")) == sorted(
            item["output"] for item in expected if item["output"] is not None
        )
    generated = [engine.outputs_of(step) for step in engine.prompts_by_step]
    tokens = sum(output.count for output in chain(*generated))
    prompts = sum(engine.count(prompt) for prompt in engine.prompts_by_step.values())
    assert harness.billed(started) == [(prompts, 0, tokens)]


def crashing(write, points: Crashes):
    """Return the method of a journal with points before and after it at which the worker may crash."""

    def wrapped(self, *arguments, **options):
        points.point()
        result = write(self, *arguments, **options)
        points.point()
        return result

    return wrapped
