"""Read notes in ten languages, and questions about them: the development set of `recall` for other languages.

The notes say the same in each language. Limits: a dozen notes each, one author, whose translations nobody has checked;
so a miss of one question is a tenth of a language's figure.
"""

from datetime import UTC, datetime, timedelta

from bench.recall.script import lines
from bench.recall.shape import Question, SampleConversation, Utterance

#: The day of the first note; the others follow, one a day.
FIRST_DAY = datetime(2026, 2, 2, 12, tzinfo=UTC)


def languages() -> list[SampleConversation]:
    """Return a conversation per language, in which each note is a session of its own."""
    conversations: list[SampleConversation] = []
    notes: list[Utterance] = []
    questions: list[Question] = []
    for line in lines("languages"):
        if line.startswith("== "):
            notes, questions = [], []
            conversations.append(SampleConversation(line[3:], notes, questions))
        elif line.startswith("? "):
            text, number = line[2:].rsplit(" | ", 1)
            questions.append(Question(text, frozenset([int(number) - 1])))
        else:
            notes.append(_note(line, len(notes)))
    return conversations


def _note(text: str, number: int) -> Utterance:
    return Utterance("user", text, FIRST_DAY + timedelta(days=number), f"note {number}")
