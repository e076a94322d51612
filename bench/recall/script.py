"""Read the scripts of the development set.

A script has threads (`== name`) of scenes (`--`) of a few turns (`A: …`, `B: …`; `A[tag]: …` names a turn), followed by
questions: `? … | 1.2 3.4` (scene and turn, or tags), `?? …` about all occurrences for a speaker, `?m …` about all
occurrences in a month; and `* slot: one | other` for what varies between occurrences.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent

LINE = re.compile(r"([AB])(?:\[(\w+)\])?: (.+)")


@dataclass(frozen=True, slots=True)
class ScriptLine:
    """A turn of a scene: its role (`A` or `B`), its tag or nothing, and its text."""

    role: str
    tag: str
    text: str


@dataclass(frozen=True, slots=True)
class QuestionTemplate:
    """A question of a thread: its kind (``, `?`, `m`), its text, and the positions or tags of its evidence."""

    kind: str
    text: str
    evidence: Sequence[str]


@dataclass(slots=True)
class Thread:
    """Scenes about one subject, with the questions about it."""

    name: str
    scenes: list[list[ScriptLine]] = field(default_factory=list)
    questions: list[QuestionTemplate] = field(default_factory=list)
    slots: dict[str, list[str]] = field(default_factory=dict)


def threads(name: str) -> list[Thread]:
    """Read the threads of a script, by the name of its file."""
    return list(_read((FOLDER / f"{name}.txt").read_text().splitlines()))


def lines(name: str) -> list[str]:
    """Read the lines of a file."""
    return (FOLDER / f"{name}.txt").read_text().splitlines()


def _read(rows: Sequence[str]) -> Iterator[Thread]:
    thread = Thread("")
    for row in rows:
        if row.startswith("== "):
            if thread.name:
                yield thread
            thread = Thread(row[3:])
        else:
            _add(thread, row)
    yield thread


def _add(thread: Thread, row: str) -> None:
    if row == "--":
        thread.scenes.append([])
    elif row.startswith("* "):
        slot, options = row[2:].split(": ", 1)
        thread.slots[slot] = options.split(" | ")
    elif row.startswith("?"):
        mark, rest = row.split(" ", 1)
        text, evidence = rest.rsplit(" | ", 1)
        thread.questions.append(QuestionTemplate(mark[1:], text, evidence.split()))
    elif match := LINE.fullmatch(row):
        thread.scenes[-1].append(ScriptLine(match[1], match[2] or "", match[3]))
    else:
        raise ValueError(f"the script has an invalid line: {row!r}")
