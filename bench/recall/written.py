"""Conversations in whole sentences, from scripts that were written for this.

Sessions a few days apart over most of a year, each with small talk around scenes of several threads.

In `letters` two scenes run at once: each turn answers in one and goes on in the other, so it is long and of two minds.

Who of the two plays A and who B is drawn anew for each thread, so that both have hobbies, pets and bad news; a thread's
scenes keep their order but other threads run between them. Limits: twenty threads, one author, American and British
mixed; the events of a thread are unlike those of another one more often than in life.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from random import Random

from bench.recall.script import Thread, lines, threads
from bench.recall.shape import Question, Talk, Turn

NAMES = ("Nora", "Felix", "Joan", "Tariq", "Ines", "Victor", "Hanna", "Leo", "Grace", "Mateo", "Ruth", "Anton")

#: Sessions of one conversation, and the days between two of them.
SESSIONS, GAP = 22, (3, 18)

#: Lines of small talk before, between and after the scenes of a session.
SMALL_TALK = (1, 5)


def written(name: str, scripts: Sequence[str], seed: int) -> Talk:
    """A conversation with the threads of these scripts."""
    given = [thread for script in scripts for thread in threads(script)]
    return Composer(name, Random(f"{name} {seed}")).compose(given)


def letters(name: str, scripts: Sequence[str], seed: int) -> Talk:
    """The same with two scenes at once."""
    given = [thread for script in scripts for thread in threads(script)]
    return Composer(name, Random(f"{name} {seed}"), together=2).compose(given)


#: How many of the statements end with a question, and such questions.
ASKING_BACK = 0.3
BACK = (
    "What about you?",
    "How have you been?",
    "Anything new on your side?",
    "Have you ever tried something like that?",
    "What are you up to these days?",
    "How's everything with you?",
    "What do you think?",
)

#: A line's place in the script (thread, scene and line), its speaker and its text.
Told = tuple[tuple[str, str], str, str]


class Composer:
    """Spreads threads over sessions, and notes where each scene ends up."""

    def __init__(self, name: str, random: Random, together: int = 1) -> None:
        self._name = name
        self._together = together
        self._random = random
        self._people = random.sample(NAMES, 2)
        self._chatter = lines("chatter")
        self._turns: list[Turn] = []
        self._at: dict[tuple[str, str], int] = {}

    def compose(self, given: Sequence[Thread]) -> Talk:
        """All of it."""
        casts = {thread.name: self._cast() for thread in given}
        for number, (scenes, begins) in enumerate(zip(self._timetable(given), self._days(), strict=True)):
            self._session(f"session-{number + 1}", begins, scenes, casts)
        questions = [question for thread in given for question in self._questions(thread, casts[thread.name])]
        return Talk(self._name, self._turns, questions)

    def _cast(self) -> Mapping[str, str]:
        return dict(zip("AB", self._random.sample(self._people, 2), strict=True))

    def _timetable(self, given: Sequence[Thread]) -> list[list[tuple[Thread, int]]]:
        """Which scenes a session has."""
        table: list[list[tuple[Thread, int]]] = [[] for _ in range(SESSIONS)]
        for thread in given:
            for scene, session in enumerate(sorted(self._random.sample(range(SESSIONS), len(thread.scenes)))):
                table[session].append((thread, scene))
        for scenes in table:
            self._random.shuffle(scenes)
        return table

    def _days(self) -> list[datetime]:
        day = datetime(2023, self._random.randint(1, 5), self._random.randint(1, 28), tzinfo=UTC)
        days = []
        for _ in range(SESSIONS):
            days.append(day + timedelta(minutes=self._random.randint(480, 1320)))
            day += timedelta(days=self._random.randint(*GAP))
        return days

    def _session(
        self, session: str, at: datetime, scenes: Sequence[tuple[Thread, int]], casts: Mapping[str, Mapping[str, str]]
    ) -> None:
        self._small_talk(session, at)
        for first in range(0, len(scenes), self._together):
            told = [self._told(thread, scene, casts) for thread, scene in scenes[first : first + self._together]]
            while any(told):
                self._turn(session, at, told)
            self._small_talk(session, at)

    def _told(self, thread: Thread, scene: int, casts: Mapping[str, Mapping[str, str]]) -> list[Told]:
        """The lines of a scene: where each stands in the script, who says it, and what."""
        cast = casts[thread.name]
        return [
            ((thread.name, f"{scene + 1}.{place + 1}"), cast[line.letter], put_names(line.text, cast))
            for place, line in enumerate(thread.scenes[scene])
        ]

    def _turn(self, session: str, at: datetime, told: Sequence[list[Told]]) -> None:
        """One turn: the next line of the first scene that goes on, and of others in which the same one is next."""
        speaker = next(lines[0][1] for lines in told if lines)
        said = [lines.pop(0) for lines in told if lines and lines[0][1] == speaker]
        self._at |= {place: len(self._turns) for place, _, _ in said}
        self._say(session, at, speaker, self._asking_back(" ".join(text for _, _, text in said)))

    def _asking_back(self, text: str) -> str:
        """Many a statement ends with a question that has nothing to do with it."""
        asks = not text.endswith("?") and self._random.random() < ASKING_BACK
        return f"{text} {self._random.choice(BACK)}" if asks else text

    def _small_talk(self, session: str, at: datetime) -> None:
        for text in self._random.sample(self._chatter, self._random.randint(*SMALL_TALK)):
            said = self._turns[-1].speaker if self._turns else self._people[0]
            speaker, other = sorted(self._people, key=lambda name: name == said)
            self._say(session, at, speaker, text.replace("{O}", other))

    def _say(self, session: str, begins: datetime, speaker: str, text: str) -> None:
        at = max(begins, self._turns[-1].at if self._turns else begins) + timedelta(seconds=self._random.randint(9, 90))
        self._turns.append(Turn(speaker, text, at, session))

    def _questions(self, thread: Thread, cast: Mapping[str, str]) -> list[Question]:
        return [
            Question(
                re.sub(r"\{month:(\d)\}", lambda found: self._month(thread, found[1]), put_names(asked.text, cast)),
                frozenset(self._at[thread.name, place] for place in asked.places),
            )
            for asked in thread.asked
        ]

    def _month(self, thread: Thread, scene: str) -> str:
        return f"{self._turns[self._at[thread.name, f'{scene}.1']].at:%B %Y}"


def put_names(text: str, cast: Mapping[str, str]) -> str:
    """Names for `{A}` and `{B}`."""
    return text.replace("{A}", cast["A"]).replace("{B}", cast["B"])
