"""Conversations generated from templates: the same kinds of events again and again, for both people, at other times.

In short messages (`texting`): one thread of most of a year without sessions, lower case, several messages in a row by
one person. In whole sentences (`circles`): two friends who praise each other and come back to the same five topics, so
that half of the turns are about what is asked, and only a name or an object tells the one that answers.

A question may be about one event (what tells it apart stands in the question), all events of a kind, or those of a
month. Limits: few kinds of events with two or three wordings each, so the wording repeats far more than in life, and
what answers is told from what does not by slots and by who spoke.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

from bench.recall.script import Asked, Line, Thread, lines, threads
from bench.recall.shape import Question, Talk, Turn
from bench.recall.written import NAMES, put_names

#: Events of one conversation, the hours between two of them, and how many questions about single events are asked.
EVENTS, GAP, SINGLE = 70, (20, 240), 90

#: Messages of small talk after an event.
SMALL_TALK = (2, 7)

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "the weekend")
WHEN = ("yesterday", "last weekend", "this morning", "on tuesday", "next week", "tomorrow", "last night")

SLOT = re.compile(r"\{(\w+)(:their)?\}")


@dataclass(slots=True)
class Event:
    """One time that something happened to A of this cast."""

    thread: Thread
    cast: Mapping[str, str]
    slots: Mapping[str, str]
    at: datetime
    tags: dict[str, list[int]] = field(default_factory=dict)


def texting(name: str, seed: int) -> Talk:
    """A conversation in short messages, without sessions."""
    return Composer(name, Random(f"{name} {seed}"), "texting", sessions=False).compose()


def circles(name: str, seed: int) -> Talk:
    """A conversation in whole sentences that comes back to five topics again and again, each day a session."""
    return Composer(name, Random(f"{name} {seed}"), "circles", sessions=True).compose()


class Composer:
    """Lets events happen, and asks about them."""

    def __init__(self, name: str, random: Random, script: str, *, sessions: bool) -> None:
        self._name = name
        self._random = random
        self._sessions = sessions
        self._people = random.sample(NAMES, 2)
        self._kinds = threads(script)
        self._chatter = lines("chatter" if sessions else "texting-chatter")
        self._turns: list[Turn] = []

    def compose(self) -> Talk:
        """All of it."""
        at, events = datetime(2024, self._random.randint(1, 9), 3, 7, tzinfo=UTC), []
        for _ in range(EVENTS):
            at += timedelta(hours=self._random.randint(*GAP))
            events.append(self._happen(at))
            self._small_talk()
        return Talk(self._name, self._turns, [*self._about_one(events), *self._about_many(events)])

    def _happen(self, at: datetime) -> Event:
        thread = self._random.choice(self._kinds)
        slots = {slot: self._random.choice(options) for slot, options in thread.slots.items()}
        cast = dict(zip("AB", self._random.sample(self._people, 2), strict=True))
        event = Event(thread, cast, slots | {"day": self._random.choice(DAYS), "when": self._random.choice(WHEN)}, at)
        for line in self._random.choice(thread.scenes):
            self._say(line, event)
        return event

    def _say(self, line: Line, event: Event) -> None:
        if line.tag:
            event.tags.setdefault(line.tag, []).append(len(self._turns))
        text = SLOT.sub(lambda found: event.slots[found[1]], put_names(line.text, event.cast))
        at = max(event.at, self._turns[-1].at if self._turns else event.at)
        at += timedelta(seconds=self._random.randint(4, 99))
        self._add(event.cast[line.letter], text[0].upper() + text[1:] if self._sessions else text, at)

    def _small_talk(self) -> None:
        at = self._turns[-1].at + timedelta(hours=1)
        for text in self._random.sample(self._chatter, self._random.randint(*SMALL_TALK)):
            at += timedelta(seconds=self._random.randint(4, 4000))
            speaker, other = self._random.sample(self._people, 2)
            self._add(speaker, text.replace("{O}", other), at)

    def _add(self, speaker: str, text: str, at: datetime) -> None:
        self._turns.append(Turn(speaker, text, at, f"{at:%Y-%m-%d}" if self._sessions else "all"))

    def _about_one(self, events: Sequence[Event]) -> list[Question]:
        every = [(event, asked) for event in events for asked in event.thread.asked if not asked.kind]
        found = [one(asked, event, events) for event, asked in self._random.sample(every, SINGLE)]
        return list({question.text: question for question in found if question.evidence}.values())

    def _about_many(self, events: Sequence[Event]) -> list[Question]:
        found: dict[str, set[int]] = {}
        for event in events:
            for asked in event.thread.asked:
                if asked.kind:
                    evidence = {place for tag in asked.places for place in event.tags.get(tag, [])}
                    found.setdefault(worded(asked, event), set()).update(evidence)
        return [Question(text, frozenset(evidence)) for text, evidence in found.items() if 0 < len(evidence) <= 5]


def one(asked: Asked, event: Event, events: Sequence[Event]) -> Question:
    """A question about an event, and about others that it can't be told from."""
    text = worded(asked, event)
    alike = [other for other in events if other.thread is event.thread and worded(asked, other) == text]
    evidence = frozenset(place for other in alike for tag in asked.places for place in other.tags.get(tag, []))
    return Question(text, evidence)


def worded(asked: Asked, event: Event) -> str:
    """The question's text."""
    text = put_names(asked.text, event.cast).replace("{month}", f"{event.at:%B %Y}")
    return SLOT.sub(lambda found: seen(event, *found.groups()), text)


def seen(event: Event, slot: str, their: str | None) -> str:
    """What a slot holds, as somebody else would say it."""
    value = event.slots[slot]
    return re.sub(r"\bmy\b", f"{event.cast['A']}'s", value) if their else value
