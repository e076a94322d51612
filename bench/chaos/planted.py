"""Show that chaos detects broken builds: bugs planted in copies of this tree, each followed by a short run.

A planted bug removes one mechanism that a guarantee depends on. A run over it must find violations; if it finds none,
the checker or the injector does not cover that guarantee.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from bench.chaos.planted_batches import BATCHES
from bench.chaos.planted_bug import Edit, PlantedBug
from bench.chaos.planted_files import FILES, REPORTS
from bench.chaos.planted_money import MONEY
from bench.chaos.planted_spilling import SPILLING
from bench.chaos.planted_trees import TREES
from bench.chaos.planted_webhooks import WEBHOOKS
from bench.machine import ROOT
from bench.progress import Progress
from ops.child_process import launcher_command

#: The folders of Sangha and of its measurements.
SOURCES = ("bench", "models", "ops", "pipelines", "scheduler", "tasks", "web")

FENCE_OF_JOURNAL = Edit("models/journal/journal.py", "if take < 2 then", "if take < 0 then")

FENCE_OF_ROW = Edit(
    "models/jobs/fence.py",
    'FENCE = "id = %(id)s AND attempt = %(attempt)s AND claim_id = %(claim_id)s"',
    'FENCE = "id = %(id)s"',
)

#: The heartbeat stops attempts whose claim is not the latest one, before they write.
HELD_CLAIMS = Edit(
    "models/jobs/leases.py",
    "ON id = held_id AND attempt = held_attempt AND claim_id = held_claim",
    "ON id = held_id AND held_attempt > 0 AND held_claim IS NOT NULL",
)

#: Slots enough for a second attempt while the first one runs.
FREE_SLOTS = 8

#: Turns that take longer than a failover, most of which were claimed in the time that a standby lacks.
LOST_CLAIMS = (
    Edit("bench/chaos/transcripts.py", "TOKENS, RATE, SLOW_RATE = 40, 40, 1", "TOKENS, RATE, SLOW_RATE = 40, 8, 1"),
    Edit("bench/chaos/standby.py", "LOST_SECONDS = 1.0", "LOST_SECONDS = 5.0"),
)

#: A frozen worker continues while another one runs its jobs.
TAKEOVER = ("freeze-worker:inference-a",)

PLANTED = (
    PlantedBug(
        "no-fence", "no write checks the claim", [FENCE_OF_JOURNAL, FENCE_OF_ROW, HELD_CLAIMS], TAKEOVER, minutes=1
    ),
    PlantedBug(
        "claim-without-uuid",
        "a claim is known by its number alone, which a promoted standby may give twice",
        [
            replace(FENCE_OF_ROW, new='FENCE = "id = %(id)s AND attempt = %(attempt)s"'),
            replace(HELD_CLAIMS, new="ON id = held_id AND attempt = held_attempt AND held_claim IS NOT NULL"),
            Edit(
                "models/journal/journal.py",
                "    if fence == attempt and stored[4] and stored[4] ~= claim then return {'fenced', last} end\n",
                "",
            ),
            *LOST_CLAIMS,
        ],
        ("lose-claims",),
        minutes=1.5,
    ),
    PlantedBug(
        "blip-is-crash",
        "a redelivered message takes a job over from a worker that lives, and counts a crash",
        [
            Edit(
                "models/jobs/attempts.py",
                "    attempt = attempt + 1,\n    claim_id = gen_random_uuid(),",
                "    attempt = attempt + 1, crashes = crashes + (state = 'running')::int,\n"
                "    claim_id = gen_random_uuid(),",
            ),
            Edit(
                "models/jobs/attempts.py",
                "AND message_id = %(message_id)s AND worker = %(worker)s AND %(unsure)s)",
                "AND message_id = %(message_id)s AND %(unsure)s IS NOT NULL AND %(worker)s <> '')",
            ),
        ],
        ("blip-rabbitmq",),
        slots=FREE_SLOTS,
    ),
    PlantedBug(
        "resend-by-age",
        "a lost message is sent again after as long as its job had waited for its window",
        [
            Edit(
                "models/jobs/outbox.py",
                "published_at < now() - interval '30 seconds' * 2 ^ least(greatest(sends - 1, 0), 7))",
                "published_at < now() - (published_at - run_at))",
            )
        ],
        ("lose-messages",),
        minutes=0.25,  # once: the wait for the next message doubles
        patience=80,
    ),
    PlantedBug(
        "no-grace",
        "leases expire as soon as Postgres is back",
        [Edit("scheduler/clock.py", "if self._contact.lasts():", "if self._contact is not None:")],
        ("postgres-away",),
        minutes=1.5,
    ),
    PlantedBug(
        "no-sweeper",
        "unpublished and lost jobs are never published again",
        [
            Edit(
                "scheduler/clock.py",
                "connect(settings.redis_address), interval=SWEEP_INTERVAL)",
                "connect(settings.redis_address))",
            ),
            Edit(
                "scheduler/clock.py",
                'PeriodicThread("sweeper", SWEEP_INTERVAL, noting_life(settings, clock.sweep)).start(),\n',
                "",
            ),
        ],
        ("wipe-valkey",),
        broker="redis",
    ),
    PlantedBug(
        "no-second-message",
        "a lost message is never sent again",
        [
            Edit(
                "scheduler/clock.py",
                "promote_due(connection) + outbox.unpublish_lost(connection, self._queue.broker_age())",
                "promote_due(connection)",
            )
        ],
        ("wipe-valkey",),
        broker="redis",
    ),
    PlantedBug(
        "token-twice",
        "a token is journalled twice",
        [
            Edit(
                "pipelines/chat/answer_writer.py",
                "        self._journal.write_text(TEXT_DELTA, self._delta_fields, text, token.count, logprobs)",
                "        for _ in range(1 + text.startswith('w7.')):\n"
                "            self._journal.write_text(TEXT_DELTA, self._delta_fields, text, token.count, logprobs)",
            )
        ],
        ("kill-worker",),
    ),
    PlantedBug(
        "engine-is-the-meter",
        "usage is what the last engine generated, not what was journalled",
        [Edit("pipelines/chat/answer_writer.py", "self.output_tokens = step.tokens", "self.output_tokens = 0")],
        ("kill-worker",),
    ),
    PlantedBug(
        "no-last-events",
        "the archive lacks the last events of the journal",
        [
            Edit(
                "tasks/settlement.py",
                "events = [*attempt.journal.archivable(), *ending.events]",
                "events = attempt.journal.archivable()",
            )
        ],
        ("kill-web",),
    ),
    PlantedBug(
        "silent-rewind",
        "events lost with worker and Valkey are generated again without a rewind",
        [
            Edit(
                "models/jobs/attempt_context.py",
                "lost = incomplete or (not result.same_server and _may_follow_others(job, result.fence, history))",
                "lost = False",
            )
        ],
        ("wipe-with-worker",),
    ),
    PlantedBug(
        "made-twice",
        "a request repeated with its Idempotency-Key creates another object",
        [
            Edit(
                "models/access/idempotency.py",
                "DO UPDATE SET locked_until = excluded.locked_until\n",
                "DO UPDATE SET locked_until = excluded.locked_until, seed = excluded.seed\n",
            )
        ],
        ("kill-web", "kill-postgres"),
    ),
    PlantedBug(
        "connection-kept",
        "a broken connection to Postgres is never returned to its pool",
        [
            Edit(
                "models/platform/database.py",
                "        finally:\n            self._return(connection)",
                "        else:\n            self._return(connection)",
            )
        ],
        ("cut-link:web-postgres", "cut-link:worker-postgres", "kill-postgres"),
    ),
    PlantedBug(
        "foreign-responses",
        "a response is read without a check of its owner",
        [
            Edit(
                "models/turns/responses.py",
                "WHERE responses.id = %(id)s AND {ACCESSIBLE}\n",
                "WHERE responses.id = %(id)s AND (TRUE OR {ACCESSIBLE})\n",
            )
        ],
        (),
        minutes=0.25,
        attacks=("foreign-ids",),
    ),
    *MONEY,
    *TREES,
    *SPILLING,
    *BATCHES,
    *WEBHOOKS,
    *FILES,
    *REPORTS,
)


@dataclass(frozen=True, slots=True)
class PlantedResult:
    """The violations of a run over a planted bug: rules with their counts, the most frequent first, and its error."""

    bug: PlantedBug
    rules: Sequence[str]
    error: str

    @property
    def caught(self) -> bool:
        """Whether the run found a violation."""
        return bool(self.rules)

    def line(self) -> str:
        """Return the result as one line."""
        evidence = ", ".join(self.rules) or self.error or "nothing"
        return f"{self.bug.name:<20} {'caught' if self.caught else 'NOT CAUGHT'} by {evidence}: {self.bug.description}"


def run_planted(bugs: Sequence[PlantedBug], progress: Progress) -> Iterator[PlantedResult]:
    """Plant one bug after the other, and run chaos over each."""
    for number, bug in enumerate(bugs):
        progress.begin(bug.name)
        progress.step(number, len(bugs), bug.description)
        with planted_copy(bug) as folder:
            yield run_in(folder, bug)


@contextmanager
def planted_copy(bug: PlantedBug) -> Iterator[Path]:
    """Copy the tree, plant the bug, and delete the copy at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="sangha-planted-") as name:
        folder = Path(name)
        for source in SOURCES:
            shutil.copytree(ROOT / source, folder / source, ignore=shutil.ignore_patterns("__pycache__"))
        for edit in bug.edits:
            (folder / edit.file).write_text(apply_edit(edit, (folder / edit.file).read_text()))
        yield folder


def apply_edit(edit: Edit, text: str) -> str:
    """Replace the text of an edit. Raises ValueError unless it occurs exactly once."""
    if (count := text.count(edit.old)) != 1:
        raise ValueError(f"{edit.file} has {count} times: {edit.old}")
    return text.replace(edit.old, edit.new)


def run_in(folder: Path, bug: PlantedBug) -> PlantedResult:
    """Run chaos in a copy."""
    report = folder / "report.json"
    command = launcher_command([sys.executable, "-m", *_command(bug, report)], signal.SIGTERM)
    environment = os.environ | {"TMPDIR": str(folder)}  # so that kept logs are deleted with the copy
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    violations = orjson.loads(report.read_bytes())["violations"] if report.exists() else []
    counts = Counter(violation["rule"] for violation in violations)
    error = next((line for line in reversed(done.stderr.splitlines()) if "chaos: " in line), "")
    return PlantedResult(bug, [f"{rule} ({count})" for rule, count in counts.most_common()], error)


def _command(bug: PlantedBug, report: Path) -> list[str]:
    """Return the module of the run, and its options."""
    common: dict[str, object] = {
        "--seed": bug.seed, "--broker": bug.broker, "--patience": bug.patience, "--json": report,
    }  # fmt: skip
    if bug.payments:
        return ["bench.chaos.charges", *_words(common | {"--count": bug.payments})]
    options = common | {"--minutes": bug.minutes, "--slots": bug.slots}
    words = _words(options)
    words += [word for name in bug.only for word in ("--only", name)]
    words += [word for name in bug.attacks for word in ("--attack", name)]
    words.append("--endpoint" if bug.spills else "--no-endpoint")
    return ["bench.chaos", *words, "--adversary-only" if bug.attacks else "--no-adversary"]


def _words(options: Mapping[str, object]) -> list[str]:
    return [str(word) for option in options.items() for word in option]
