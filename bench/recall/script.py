"""Reads the scripts of the development set.

A script is threads (`== name`) of scenes (`--`), each a few turns (`A: …`, `B: …`; `A[tag]: …` names a turn), with
questions below: `? … | 1.2 3.4` (scene and turn, or tags), `?? …` for one about every time that this happened to the
speaker, `?m …` for one about every time in a month; and `* slot: one | other` for what varies from time to time.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent

LINE = re.compile(r"([AB])(?:\[(\w+)\])?: (.+)")


@dataclass(frozen=True, slots=True)
class Line:
    """A turn of a scene: `A` or `B`, a tag or nothing, the text."""

    letter: str
    tag: str
    text: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of a thread: its kind (``, `?`, `m`), its text and where its evidence is."""

    kind: str
    text: str
    places: Sequence[str]


@dataclass(slots=True)
class Thread:
    """Scenes about one thing."""

    name: str
    scenes: list[list[Line]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    slots: dict[str, list[str]] = field(default_factory=dict)


def threads(name: str) -> list[Thread]:
    """The threads of a script by its file's name."""
    return list(_read((FOLDER / f"{name}.txt").read_text().splitlines()))


def lines(name: str) -> list[str]:
    """The lines of a file that has nothing but lines."""
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
        text, places = rest.rsplit(" | ", 1)
        thread.asked.append(Asked(mark[1:], text, places.split()))
    elif found := LINE.fullmatch(row):
        thread.scenes[-1].append(Line(found[1], found[2] or "", found[3]))
    else:
        raise ValueError(f"not a line of a script: {row!r}")
