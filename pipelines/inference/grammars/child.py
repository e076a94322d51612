"""The process that compiles callers' grammars: `python -m pipelines.inference.grammars.child BYTES`.

BYTES limits what its address space may grow by.

Reads one JSON line per request: {"seconds": CPU time for all of it, "tasks": [{"schema", "strict"} | {"grammar"}]}.
Writes one JSON line per task as soon as it is done: {"error", "ignored", "seconds"}. The kernel kills the process when
a request takes more CPU time (SIGPROF); an allocation beyond the limit aborts it (SIGABRT). Its input ends with its
parent, and so does the process.
"""

import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

import orjson

from pipelines.inference.grammars.json_rule import schema_grammar
from pipelines.inference.grammars.schema_check import SchemaVerdict, check_schema, grammar_error

#: The process yields to those that serve requests.
NICENESS = 5


def main() -> None:
    """Answer requests until the input ends."""
    grammar_error(schema_grammar({"type": "object"}))  # creates the tokenizer outside of any request's time
    limit_process(int(sys.argv[1]))
    for line in sys.stdin.buffer:
        request = orjson.loads(line)
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])
        for task in request["tasks"]:
            sys.stdout.buffer.write(orjson.dumps(run(task)) + b"\n")
            sys.stdout.buffer.flush()
        signal.setitimer(signal.ITIMER_PROF, 0)


def limit_process(memory: int) -> None:
    """Limit memory, write no core files, and leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit = address_space() + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def address_space() -> int:
    """Return the bytes of this process's address space now; on systems without /proc, a usual size."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 1 << 30


def run(task: Mapping[str, Any]) -> dict[str, Any]:
    """Check a schema or compile a grammar."""
    started = time.process_time()
    try:
        if "grammar" in task:
            verdict = SchemaVerdict(grammar_error(task["grammar"]))
        else:
            verdict = check_schema(task["schema"], strict=task["strict"])
    except (MemoryError, RecursionError):
        verdict = SchemaVerdict("it is too large or too deeply nested")
    return {**verdict._asdict(), "seconds": time.process_time() - started}


if __name__ == "__main__":
    main()
