"""Generate conversations from templates: the same kinds of events recur, for both people, at other times.

In short messages (`texting`): most of a year without sessions, lower case, several messages in a row by one person. In
whole sentences (`circles`): two friends who return to the same five topics, so that half of the turns are about the
subject of a question, and only a name or an object identifies the one that answers it.

A question may be about one event (which it identifies), all events of a kind, or those of a month. Limits: few kinds of
events with two or three wordings each, so the wording repeats far more than in real conversations, and only slots and
speakers distinguish answers from other turns.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

from bench.recall.script import QuestionTemplate, ScriptLine, Thread, lines, threads
from bench.recall.shape import Question, SampleConversation, Utterance
from bench.recall.written import NAMES, put_names

#: Events of one conversation, the least and most hours between two of them, and questions about single events.
EVENTS, GAP, SINGLE = 70, (20, 240), 90

#: Least and most messages of small talk after an event.
SMALL_TALK = (2, 7)

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "the weekend")
WHEN = ("yesterday", "last weekend", "this morning", "on tuesday", "next week", "tomorrow", "last night")

SLOT = re.compile(r"\{(\w+)(:their)?\}")


@dataclass(slots=True)
class TemplateEvent:
    """One occurrence of a thread: its roles, its slots, its time, and the numbers of its tagged turns."""

    thread: Thread
    cast: Mapping[str, str]
    slots: Mapping[str, str]
    at: datetime
    tags: dict[str, list[int]] = field(default_factory=dict)


def texting(name: str, seed: int) -> SampleConversation:
    """Generate a conversation in short messages, without sessions."""
    return EventComposer(name, Random(f"{name} {seed}"), "texting", sessions=False).compose()


def circles(name: str, seed: int) -> SampleConversation:
    """Generate a conversation in whole sentences about five recurring topics, with a session each day."""
    return EventComposer(name, Random(f"{name} {seed}"), "circles", sessions=True).compose()


class EventComposer:
    """Generates events, and questions about them."""

    def __init__(self, name: str, random: Random, script: str, *, sessions: bool) -> None:
        self._name = name
        self._random = random
        self._sessions = sessions
        self._people = random.sample(NAMES, 2)
        self._kinds = threads(script)
        self._chatter = lines("chatter" if sessions else "texting-chatter")
        self._turns: list[Utterance] = []

    def compose(self) -> SampleConversation:
        """Generate the conversation."""
        at, events = datetime(2024, self._random.randint(1, 9), 3, 7, tzinfo=UTC), []
        for _ in range(EVENTS):
            at += timedelta(hours=self._random.randint(*GAP))
            events.append(self._add_event(at))
            self._small_talk()
        return SampleConversation(self._name, self._turns, [*self._about_one(events), *self._about_many(events)])

    def _add_event(self, at: datetime) -> TemplateEvent:
        thread = self._random.choice(self._kinds)
        slots = {slot: self._random.choice(options) for slot, options in thread.slots.items()}
        cast = dict(zip("AB", self._random.sample(self._people, 2), strict=True))
        event = TemplateEvent(
            thread, cast, slots | {"day": self._random.choice(DAYS), "when": self._random.choice(WHEN)}, at
        )
        for line in self._random.choice(thread.scenes):
            self._add_line(line, event)
        return event

    def _add_line(self, line: ScriptLine, event: TemplateEvent) -> None:
        if line.tag:
            event.tags.setdefault(line.tag, []).append(len(self._turns))
        text = SLOT.sub(lambda match: event.slots[match[1]], put_names(line.text, event.cast))
        at = max(event.at, self._turns[-1].at if self._turns else event.at)
        at += timedelta(seconds=self._random.randint(4, 99))
        self._add(event.cast[line.role], text[0].upper() + text[1:] if self._sessions else text, at)

    def _small_talk(self) -> None:
        at = self._turns[-1].at + timedelta(hours=1)
        for text in self._random.sample(self._chatter, self._random.randint(*SMALL_TALK)):
            at += timedelta(seconds=self._random.randint(4, 4000))
            speaker, other = self._random.sample(self._people, 2)
            self._add(speaker, text.replace("{O}", other), at)

    def _add(self, speaker: str, text: str, at: datetime) -> None:
        self._turns.append(Utterance(speaker, text, at, f"{at:%Y-%m-%d}" if self._sessions else "all"))

    def _about_one(self, events: Sequence[TemplateEvent]) -> list[Question]:
        every = [(event, template) for event in events for template in event.thread.questions if not template.kind]
        questions = [about_event(template, event, events) for event, template in self._random.sample(every, SINGLE)]
        return list({question.text: question for question in questions if question.evidence}.values())

    def _about_many(self, events: Sequence[TemplateEvent]) -> list[Question]:
        evidence_by_text: dict[str, set[int]] = {}
        for event in events:
            for template in event.thread.questions:
                if template.kind:
                    numbers = {number for tag in template.evidence for number in event.tags.get(tag, [])}
                    evidence_by_text.setdefault(text_for(template, event), set()).update(numbers)
        return [
            Question(text, frozenset(evidence)) for text, evidence in evidence_by_text.items() if 0 < len(evidence) <= 5
        ]


def about_event(template: QuestionTemplate, event: TemplateEvent, events: Sequence[TemplateEvent]) -> Question:
    """Return a question about an event, and about others with the same question."""
    text = text_for(template, event)
    same = [other for other in events if other.thread is event.thread and text_for(template, other) == text]
    evidence = frozenset(number for other in same for tag in template.evidence for number in other.tags.get(tag, []))
    return Question(text, evidence)


def text_for(template: QuestionTemplate, event: TemplateEvent) -> str:
    """Return the text of a question about an event."""
    text = put_names(template.text, event.cast).replace("{month}", f"{event.at:%B %Y}")
    return SLOT.sub(lambda match: slot_text(event, *match.groups()), text)


def slot_text(event: TemplateEvent, slot: str, their: str | None) -> str:
    """Return the text of a slot, in the third person where the question needs it."""
    value = event.slots[slot]
    return re.sub(r"\bmy\b", f"{event.cast['A']}'s", value) if their else value
