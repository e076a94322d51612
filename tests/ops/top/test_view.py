"""What `sangha top` draws, at the sizes of terminals."""

import io
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console

from models.jobs.catalogue import POOLS
from models.jobs.pool_states import PoolState
from models.serving.breakers import Breaker
from models.serving.stranded import UnservedQueue
from ops.top.snapshot import EngineRow, QueueRow, Snapshot
from ops.top.stream_counts import StreamCounts
from ops.top.view import View, age, problems


def pool(name: str, **numbers: int) -> PoolState:
    counts = dict.fromkeys(("scheduled", "queued", "running", "waiting", "dead"), 0) | numbers
    return PoolState(name, workers=1, threads=5, more_scheduled=False, oldest=0.0, **counts)


SNAPSHOT = Snapshot(
    time=datetime(2026, 11, 28, 20, 15, 3, tzinfo=UTC),
    workers=2,
    engines=[EngineRow("llama-3.1-8b", "inference", 4, 4, 12, 17.2, 142.25)],
    pools=[pool(name) for name in POOLS],
    queues=[QueueRow("inference", 12, 4, 65.0), QueueRow("tools", 1, 2, 0.4)],
    breakers=[],
    unserved=[],
    streams=StreamCounts(31, 2),
)


def draw(view: View, width: int = 80, height: int = 24, *, terminal: bool = False) -> list[str]:
    """Return the lines of a console of that size, without empty ones at the end."""
    output = io.StringIO()
    console = Console(file=output, width=width, height=height, force_terminal=terminal, highlight=False,
                      color_system="256" if terminal else None, _environ={})  # fmt: skip
    console.print(view, height=height)
    return [line.rstrip() for line in output.getvalue().rstrip().splitlines()]


def row_of(lines: list[str], start: str) -> list[str]:
    line, *_ = [line for line in lines if line.startswith(start)]
    return line.split()


def test_tables_have_the_numbers_of_the_installation() -> None:
    lines = draw(View(SNAPSHOT, hint="q quit"))

    assert lines[0].split() == ["sangha", "top", lines[0].split()[2], "2026-11-28", "20:15:03", "UTC"]
    assert lines[1] == "2 workers  4 turns running  12 queued  142.2 tokens/s  31 streams  2 slow"
    assert row_of(lines, "llama-3.1-8b") == ["llama-3.1-8b", "██████████", "4/4", "12", "17", "s", "142.2"]
    assert row_of(lines, "tools ")[1:3] == ["1", "5"]
    queues = lines[[line.startswith("queue, by age") for line in lines].index(True) :]
    assert queues[2].split() == ["inference", "4", "12", "65", "s"]
    assert queues[3].split() == ["tools", "2", "1", "0.4", "s"]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 50), (140, 24), (200, 60), (100, 30)])
@pytest.mark.parametrize("models", [1, 5])
def test_view_fits_the_terminal(width: int, height: int, models: int) -> None:
    # Given more than a terminal has room for
    engines = [replace(SNAPSHOT.engines[0], name=f"a-model-with-a-very-long-name-{n}") for n in range(models)]
    queues = [QueueRow(f"queue-{n}", 1, 1, 1.0) for n in range(100)]
    snapshot = replace(SNAPSHOT, engines=engines, queues=queues, breakers=[Breaker("groq")])
    # When it is drawn
    lines = draw(View(snapshot, hint="q quit", problem="No newer state"), width, height)
    # Then nothing is wider or higher than the terminal, and the hint is the last line
    assert max(map(len, lines)) <= width
    assert len(lines) <= height
    assert lines[-1] == "q quit"


def test_tables_stand_side_by_side_in_a_wide_terminal() -> None:
    assert any("model" in line and "pool" in line for line in draw(View(SNAPSHOT), 160, 40))
    assert not any("model" in line and "pool" in line for line in draw(View(SNAPSHOT), 80, 40))


def test_colours_are_used_on_terminals_only() -> None:
    assert "\x1b[" in "".join(draw(View(SNAPSHOT), terminal=True))
    assert "\x1b" not in "".join(draw(View(SNAPSHOT)))


def test_problems_name_the_command_that_helps() -> None:
    broken = replace(
        SNAPSHOT,
        workers=0,
        pools=[pool("tools", dead=2)],
        breakers=[Breaker("groq", breaker_state="open")],
        unserved=[UnservedQueue("inference.other", 3, 9.0)],
    )

    assert problems(SNAPSHOT) == []
    assert problems(broken) == [
        "No worker is running",
        "inference.other: 3 jobs wait, and no worker serves it",
        "Endpoint groq is not asked: sangha breakers list",
        "2 dead jobs: sangha dead list",
    ]
    assert "! 2 dead jobs: sangha dead list" in draw(View(broken))


def test_unknown_numbers_are_dashes() -> None:
    engine = replace(SNAPSHOT.engines[0], slots=0, wait=None, tokens_per_second=None)

    lines = draw(View(replace(SNAPSHOT, engines=[engine], streams=None)))

    assert lines[1].endswith("- tokens/s  - streams  - slow")
    assert row_of(lines, "llama-3.1-8b") == ["llama-3.1-8b", "no", "worker", "4/0", "12", "-", "-"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.04, "0.0 s"), (9.9, "9.9 s"), (10, "10 s"), (99, "99 s"), (100, "2 min"), (7200, "2 h"),
     (400_000, "5 d")],
)  # fmt: skip
def test_age_has_a_fitting_unit(seconds: float | None, text: str) -> None:
    assert age(seconds).plain == text
