"""Does chaos notice? Builds that are broken on purpose, each in a copy of this tree, each put through a short run.

A planted bug takes out one thing that a promise stands on. A run over it has to find violations; one that finds none
says that the checker, or the adversary, is blind to that promise.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from bench.machine import ROOT
from bench.progress import Progress
from ops.process import launcher_command

#: The folders that make up Sangha and its measurements.
SOURCES = ("bench", "models", "ops", "pipelines", "scheduler", "tasks", "web")

#: Seconds that what a broken build has lost is waited for: longer than any lease or nudge takes to be made good.
PATIENCE = 45


@dataclass(frozen=True, slots=True)
class Edit:
    """One text of one file, which stands there exactly once, and what takes its place."""

    file: str
    was: str
    becomes: str


@dataclass(frozen=True, slots=True)
class Planted:
    """A bug, and the run that must notice it: faults, seed and length."""

    name: str
    what: str
    edits: Sequence[Edit]
    only: Sequence[str]
    broker: str = "rabbitmq"
    slots: int = 4
    seed: int = 7
    minutes: float = 0.75


FENCE_OF_JOURNAL = Edit("models/journal/journal.py", "if fence > attempt then return {'fenced', last} end\n", "")

FENCE_OF_ROW = Edit(
    "models/jobs/attempts.py",
    "WHERE id = %(id)s AND attempt = %(attempt)s AND state = 'running'\nRETURNING parent_id",
    "WHERE id = %(id)s AND state = 'running'\nRETURNING parent_id",
)

#: Messages come again while their first attempt still runs, to a neighbour with room for them.
ROOM = 8
TWICE = ("cut-link:inference-a-rabbitmq",)

PLANTED = (
    Planted("no-fence", "nobody asks whether an attempt is over", [FENCE_OF_JOURNAL, FENCE_OF_ROW], TWICE, slots=ROOM),
    Planted(
        "no-fence-in-row",
        "an attempt that is over may end its job",
        [FENCE_OF_ROW],
        (*TWICE, "slow-link:worker-valkey"),  # it takes the new one so long to raise the journal's fence
        slots=ROOM,
    ),
    Planted(
        "no-sweeper",
        "nobody publishes what no relay has, and gives back what was lost",
        [
            Edit(
                "scheduler/clock.py",
                "connect(settings.redis_address), interval=SWEEP)",
                "connect(settings.redis_address))",
            ),
            Edit("scheduler/clock.py", 'Rounds("sweeper", SWEEP, clock.sweep).start(), ', ""),
        ],
        ("wipe-valkey",),
        broker="redis",
    ),
    Planted(
        "no-second-message",
        "a message that was lost is never sent again, a lease that ran out never given back",
        [Edit("scheduler/clock.py", "moved = outbox.requeue_lost(connection)", "moved = 0")],
        ("wipe-valkey",),
        broker="redis",
    ),
    Planted(
        "token-twice",
        "a token is journalled twice",
        [
            Edit(
                "pipelines/chat/answer_writer.py",
                "        self._journal.write_text(DELTA, self._place, text, token.count)",
                "        for _ in range(1 + (text == 'w7 ')):\n"
                "            self._journal.write_text(DELTA, self._place, text, token.count)",
            )
        ],
        ("kill-worker",),
    ),
    Planted(
        "engine-is-the-meter",
        "usage is what the last engine has generated, not what was journalled",
        [Edit("pipelines/chat/answer_writer.py", "self.output_tokens = transcript.tokens", "self.output_tokens = 0")],
        ("kill-worker",),
    ),
    Planted(
        "no-last-events",
        "the archive lacks what a journal ends with",
        [
            Edit(
                "tasks/job_runner.py",
                "unarchived = [*attempt.journal.unarchived(), *ending.events]",
                "unarchived = attempt.journal.unarchived()",
            )
        ],
        ("kill-web",),
    ),
    Planted(
        "silent-rewind",
        "what was lost with worker and Valkey is told anew without a word",
        [
            Edit(
                "models/jobs/attempt_context.py",
                "lost = job.failures > 0 and (evicted or not result.same_server)",
                "lost = False",
            )
        ],
        ("wipe-with-worker",),
    ),
    Planted(
        "made-twice",
        "a request that is repeated under its Idempotency-Key makes another thing",
        [
            Edit(
                "models/access/idempotency.py",
                "DO UPDATE SET locked_until = excluded.locked_until\n",
                "DO UPDATE SET locked_until = excluded.locked_until, seed = excluded.seed\n",
            )
        ],
        ("kill-web", "kill-postgres"),
    ),
    Planted(
        "connection-kept",
        "a connection to Postgres that broke is never given back",
        [
            Edit(
                "models/platform/database.py",
                "            finally:\n                self._pool.putconn(checked_out)",
                "            except ZeroDivisionError:\n                pass\n"
                "            else:\n                self._pool.putconn(checked_out)",
            )
        ],
        ("cut-link:web-postgres", "cut-link:worker-postgres", "kill-postgres"),
    ),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run over a planted bug found: violations by rule, the most frequent first."""

    planted: Planted
    caught: bool
    rules: Sequence[str]
    said: str


def demonstrate(chosen: Sequence[Planted], progress: Progress) -> Iterator[Verdict]:
    """Plant one bug after the other and let chaos run."""
    for place, planted in enumerate(chosen):
        progress.begin(planted.name)
        progress.step(place, len(chosen), planted.what)
        with copied(planted) as folder:
            yield judged(planted, folder)


@contextmanager
def copied(planted: Planted) -> Iterator[Path]:
    """A copy of the tree with the bug in it, until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="sangha-planted-") as name:
        folder = Path(name)
        for source in SOURCES:
            shutil.copytree(ROOT / source, folder / source, ignore=shutil.ignore_patterns("__pycache__"))
        for edit in planted.edits:
            (folder / edit.file).write_text(edited(edit, (folder / edit.file).read_text()))
        yield folder


def edited(edit: Edit, text: str) -> str:
    """The text of a file with the edit in it. Raises ValueError where what it replaces does not stand there once."""
    if text.count(edit.was) != 1:
        raise ValueError(f"{edit.file} has {text.count(edit.was)} times: {edit.was}")
    return text.replace(edit.was, edit.becomes)


def judged(planted: Planted, folder: Path) -> Verdict:
    """Run chaos in a copy."""
    found = folder / "found.json"
    only = [word for name in planted.only for word in ("--only", name)]
    told = ["--seed", planted.seed, "--minutes", planted.minutes, "--broker", planted.broker, "--patience", PATIENCE]
    told += ["--slots", planted.slots]
    command = [sys.executable, "-m", "bench.chaos", *map(str, told), "--json", str(found), *only]
    whole = launcher_command(command, signal.SIGTERM)
    environment = os.environ | {"TMPDIR": str(folder)}  # what the run keeps goes with the copy
    done = subprocess.run(whole, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    violations = orjson.loads(found.read_bytes())["violations"] if found.exists() else []
    counts: dict[str, int] = {}
    for violation in violations:
        counts[violation["rule"]] = counts.get(violation["rule"], 0) + 1
    rules = [f"{rule} ({count})" for rule, count in sorted(counts.items(), key=lambda each: -each[1])]
    said = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("chaos: ")), "")
    return Verdict(planted, bool(rules), rules, said)


def line(verdict: Verdict) -> str:
    """A verdict as one line."""
    by = ", ".join(verdict.rules) or verdict.said or "nothing"
    return f"{verdict.planted.name:<20} {'caught' if verdict.caught else 'NOT CAUGHT'} by {by}: {verdict.planted.what}"
