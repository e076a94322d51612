"""Generate conversations in whole sentences, from scripts written for this purpose.

Sessions are a few days apart over most of a year, each with small talk around scenes of several threads.

In `letters` two scenes run at once: each turn answers in one and continues the other, so it is long and has two
subjects.

The roles A and B are assigned at random for each thread, so that both people have hobbies, pets and bad news; a
thread's scenes keep their order but other threads run between them. Limits: twenty threads, one author, American and
British spelling mixed; the threads are more distinct from one another than real ones.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from random import Random

from bench.recall.script import Thread, lines, threads
from bench.recall.shape import Question, SampleConversation, Utterance

NAMES = ("Nora", "Felix", "Joan", "Tariq", "Ines", "Victor", "Hanna", "Leo", "Grace", "Mateo", "Ruth", "Anton")

#: Sessions of one conversation, and the least and most days between two of them.
SESSIONS, GAP = 22, (3, 18)

#: Least and most lines of small talk before, between and after the scenes of a session.
SMALL_TALK = (1, 5)


def written(name: str, scripts: Sequence[str], seed: int) -> SampleConversation:
    """Generate a conversation with the threads of these scripts."""
    used = [thread for script in scripts for thread in threads(script)]
    return SceneComposer(name, Random(f"{name} {seed}")).compose(used)


def letters(name: str, scripts: Sequence[str], seed: int) -> SampleConversation:
    """Generate a conversation with two scenes at once."""
    used = [thread for script in scripts for thread in threads(script)]
    return SceneComposer(name, Random(f"{name} {seed}"), parallel_scenes=2).compose(used)


#: The share of statements that end with an unrelated question, and those questions.
TRAILING_QUESTION_SHARE = 0.3
TRAILING_QUESTIONS = (
    "What about you?",
    "How have you been?",
    "Anything new on your side?",
    "Have you ever tried something like that?",
    "What are you up to these days?",
    "How's everything with you?",
    "What do you think?",
)

#: A line's position in the script (thread, scene and line), its speaker and its text.
CastLine = tuple[tuple[str, str], str, str]


class SceneComposer:
    """Distributes threads over sessions, and records the turn of each line."""

    def __init__(self, name: str, random: Random, parallel_scenes: int = 1) -> None:
        self._name = name
        self._parallel_scenes = parallel_scenes
        self._random = random
        self._people = random.sample(NAMES, 2)
        self._chatter = lines("chatter")
        self._turns: list[Utterance] = []
        self._turn_numbers: dict[tuple[str, str], int] = {}

    def compose(self, used: Sequence[Thread]) -> SampleConversation:
        """Generate the conversation."""
        casts = {thread.name: self._cast() for thread in used}
        for number, (scenes, begins) in enumerate(zip(self._timetable(used), self._days(), strict=True)):
            self._session(f"session-{number + 1}", begins, scenes, casts)
        questions = [question for thread in used for question in self._questions(thread, casts[thread.name])]
        return SampleConversation(self._name, self._turns, questions)

    def _cast(self) -> Mapping[str, str]:
        return dict(zip("AB", self._random.sample(self._people, 2), strict=True))

    def _timetable(self, used: Sequence[Thread]) -> list[list[tuple[Thread, int]]]:
        """Assign scenes to sessions."""
        table: list[list[tuple[Thread, int]]] = [[] for _ in range(SESSIONS)]
        for thread in used:
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
        for first in range(0, len(scenes), self._parallel_scenes):
            running = [
                self._cast_lines(thread, scene, casts)
                for thread, scene in scenes[first : first + self._parallel_scenes]
            ]
            while any(running):
                self._turn(session, at, running)
            self._small_talk(session, at)

    def _cast_lines(self, thread: Thread, scene: int, casts: Mapping[str, Mapping[str, str]]) -> list[CastLine]:
        """Return the lines of a scene, with their positions and speakers."""
        cast = casts[thread.name]
        return [
            ((thread.name, f"{scene + 1}.{number + 1}"), cast[line.role], put_names(line.text, cast))
            for number, line in enumerate(thread.scenes[scene])
        ]

    def _turn(self, session: str, at: datetime, running: Sequence[list[CastLine]]) -> None:
        """Add one turn: the next line of the first running scene, and of others with the same next speaker."""
        speaker = next(lines[0][1] for lines in running if lines)
        spoken = [lines.pop(0) for lines in running if lines and lines[0][1] == speaker]
        self._turn_numbers |= {position: len(self._turns) for position, _, _ in spoken}
        self._add(session, at, speaker, self._with_trailing_question(" ".join(text for _, _, text in spoken)))

    def _with_trailing_question(self, text: str) -> str:
        """Append an unrelated question to some statements."""
        append = not text.endswith("?") and self._random.random() < TRAILING_QUESTION_SHARE
        return f"{text} {self._random.choice(TRAILING_QUESTIONS)}" if append else text

    def _small_talk(self, session: str, at: datetime) -> None:
        for text in self._random.sample(self._chatter, self._random.randint(*SMALL_TALK)):
            previous = self._turns[-1].speaker if self._turns else self._people[0]
            speaker, other = sorted(self._people, key=lambda name: name == previous)
            self._add(session, at, speaker, text.replace("{O}", other))

    def _add(self, session: str, begins: datetime, speaker: str, text: str) -> None:
        at = max(begins, self._turns[-1].at if self._turns else begins) + timedelta(seconds=self._random.randint(9, 90))
        self._turns.append(Utterance(speaker, text, at, session))

    def _questions(self, thread: Thread, cast: Mapping[str, str]) -> list[Question]:
        return [
            Question(
                re.sub(r"\{month:(\d)\}", lambda match: self._month(thread, match[1]), put_names(question.text, cast)),
                frozenset(self._turn_numbers[thread.name, position] for position in question.evidence),
            )
            for question in thread.questions
        ]

    def _month(self, thread: Thread, scene: str) -> str:
        return f"{self._turns[self._turn_numbers[thread.name, f'{scene}.1']].at:%B %Y}"


def put_names(text: str, cast: Mapping[str, str]) -> str:
    """Replace `{A}` and `{B}` by names."""
    return text.replace("{A}", cast["A"]).replace("{B}", cast["B"])
