"""The child that compiles callers' schemas has limits, and each request has one budget for all its schemas."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from bench.harness.waiting import wait_until
from models.platform.errors import Unavailable
from pipelines.inference.grammars import compiler as module
from pipelines.inference.grammars.compiler import BUDGET, ROOT, TOO_COMPLEX, TOO_LARGE, Compiler
from pipelines.inference.grammars.json_rule import schema_grammar

#: Compiling it takes two seconds; each number passes the check of single numbers.
BOMB = {
    "type": "object",
    "properties": {f"p{number}": {"type": "integer", "multipleOf": 9_901 + 2 * number} for number in range(40)},
}


def task(schema: dict[str, Any]) -> dict[str, Any]:
    return {"schema": schema, "strict": False}


@pytest.fixture
def compiler() -> Iterator[Compiler]:
    compiler = Compiler()
    yield compiler
    compiler.close()


def pid_of(compiler: Compiler) -> int:
    assert compiler._child is not None
    return compiler._child.pid


def test_a_schema_that_is_too_complex_is_rejected_and_its_compiler_killed(compiler: Compiler) -> None:
    first, second = compiler.check([task({"type": "string"}), task(BOMB)])
    assert (first.error, second.error) == (None, TOO_COMPLEX)
    # The next schema is compiled by a new child, and the verdict on the bomb alone is remembered.
    assert compiler.check([task({"type": "null"})])[0].error is None
    assert compiler.check([task(BOMB)])[0].error == TOO_COMPLEX
    assert compiler._child is None
    assert compiler.check([task(BOMB)])[0].error == TOO_COMPLEX
    assert compiler._child is None


def test_compiling_does_not_hold_up_this_process(compiler: Compiler) -> None:
    used = psutil.Process().cpu_times().user
    compiler.check([task(BOMB)])
    assert psutil.Process().cpu_times().user - used < BUDGET / 2


def test_all_schemas_of_a_request_share_one_budget(compiler: Compiler) -> None:
    # Given schemas of about 50 ms each, that were compiled in requests of their own
    tasks = [task({"type": "integer", "multipleOf": 9_901 + 2 * number}) for number in range(40)]
    verdicts = [compiler.check([each])[0] for each in tasks]
    assert not any(verdict.error for verdict in verdicts)
    assert sum(verdict.seconds for verdict in verdicts) > BUDGET
    # When one request has all of them
    together = compiler.check(tasks)
    # Then it is rejected at the schema that exceeds the budget
    assert together[-1].error == TOO_COMPLEX
    assert 1 < len(together) < len(tasks)


def test_a_known_schema_needs_no_child(compiler: Compiler) -> None:
    compiler.check([task({"type": "string"})])
    compiler.close()
    assert compiler.check([task({"type": "string"})])[0].error is None
    assert compiler._child is None


def test_a_killed_child_is_replaced(compiler: Compiler) -> None:
    compiler.check([task({"type": "string"})])
    os.kill(pid_of(compiler), signal.SIGKILL)
    psutil.Process(pid_of(compiler)).wait()
    assert compiler.check([task({"type": "null"})])[0].error is None


def test_a_child_that_does_not_answer_is_killed_and_nothing_remembered(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a child that is stopped
    compiler.check([task({"type": "string"})])
    os.kill(pid_of(compiler), signal.SIGSTOP)
    # When it has to check a schema
    monkeypatch.setattr(module, "TIMEOUT", 0.1)
    with pytest.raises(Unavailable, match="Retry"):
        compiler.check([task({"type": "null"})])
    monkeypatch.undo()
    # Then the same schema is checked by the next child
    assert compiler.check([task({"type": "null"})])[0].error is None


def test_memory_is_limited() -> None:
    # Given a child that may take 32 MB, and a grammar that takes 300
    compiler = Compiler(memory=32 << 20)
    grammar = schema_grammar({"type": "integer", "multipleOf": 1_000_003})
    try:
        # Then it is rejected long before its CPU time has been spent
        assert compiler.check([{"grammar": grammar}], budget=100)[0].error == TOO_LARGE
    finally:
        compiler.close()


def test_threads_share_the_child(compiler: Compiler) -> None:
    with ThreadPoolExecutor(4) as threads:
        verdicts = list(threads.map(lambda number: compiler.check([task({"const": number})])[0], range(40)))
    assert not any(verdict.error for verdict in verdicts)


def test_the_child_ends_with_its_parent() -> None:
    # Given a process that is killed while its child waits
    program = (
        "from pipelines.inference.grammars.compiler import compiler\n"
        "compiler().check([{'schema': {}, 'strict': False}])\n"
        "print(compiler()._child.pid, flush=True)\n"
        "input()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    with parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    # Then its child exits
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
