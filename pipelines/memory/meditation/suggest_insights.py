"""`memory.insight`: the language model is asked what follows from a group of memories. A child job of a meditation.

What it says is a suggestion: only what is well-formed, cites at least two of the memories, speaks their words and says
more than one of them is kept. It stands in the job's row, and nowhere else, until the meditation has used it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.memory import scan
from models.memory.scan import MemoryText
from pipelines.inference.engine import Engine, Message
from pipelines.inference.json_generation import generate_json
from pipelines.memory import suggestions
from pipelines.memory.words import content_words, split_words

KIND = "memory.insight"

#: Insights of one answer, characters of one, and the most tokens of the answer.
MAX_INSIGHTS, MAX_INSIGHT_LENGTH, MAX_ANSWER_TOKENS = 2, 300, 300

#: Characters of a memory that are told.
MAX_NOTE_LENGTH = 400

#: The fewest characters and words of content that say something, and the part of them that its sources must have.
SHORTEST, FEWEST, GROUNDED = 15, 3, 0.5

#: What has so much of one source's words, and little else, says nothing new.
REPEATS = 0.8

INSTRUCTIONS = (
    "You read notes about people and say what follows from several of them together. Each insight is one plain "
    "sentence that no single note says, taken only from the notes; `sources` are the numbers of the notes that it "
    "follows from, at least two. If nothing follows, answer with an empty list."
)


def schema(notes: int) -> Mapping[str, Any]:
    """The JSON that the model must write about so many notes."""
    members = {"text": {"type": "string", "maxLength": MAX_INSIGHT_LENGTH}}
    return suggestions.suggestions_schema("insights", members, most=MAX_INSIGHTS, lines=notes, cited=notes)


def run(engine: Engine, attempt: Attempt) -> Ending:
    """Ask, and keep what is worth keeping. Raises the reason to stop, PermanentFailure and EngineError."""
    said = suggestions.fitting_sources(engine, attempt, prompt, schema, MAX_ANSWER_TOKENS)
    if len(said) < 2:
        return plain_ending(attempt, "completed", result={"found": 0, "tokens": 0})
    answer, finish = generate_json(engine, attempt, prompt(said), schema(len(said)), MAX_ANSWER_TOKENS)
    attempt.check()
    found = list(accepted_insights(answer, said))
    told = {"found": len(found), "tokens": finish.prompt_tokens + finish.generated_tokens}
    return suggestions.suggestion_ending(engine, attempt, finish, told, {"insights": found})


def prompt(said: Sequence[MemoryText]) -> list[Message]:
    """What the model is asked about these memories."""
    notes = (
        f"[{number}] {memory.occurred_at:%Y-%m-%d} {memory.speaker}: {memory.text[:MAX_NOTE_LENGTH]}"
        for number, memory in enumerate(said, start=1)
    )
    return [Message("system", INSTRUCTIONS), Message("user", "\n".join(["Notes:", *notes]))]


def accepted_insights(answer: str, said: Sequence[MemoryText]) -> Iterator[dict[str, Any]]:
    """What of an answer is worth keeping: texts, each with the ids and the digest of its sources."""
    for insight in suggestions.parse_suggestions(answer, "insights", MAX_INSIGHTS):
        text, numbers = _parts(insight)
        sources = [said[number - 1] for number in sorted(set(numbers)) if 0 < number <= len(said)]
        if len(sources) >= 2 and len(sources) == len(set(numbers)) and _says_something(text, sources):
            yield {"text": text, "sources": [s.id for s in sources], "digest": scan.digest_texts(sources)}


def _parts(insight: Any) -> tuple[str, list[int]]:
    """Text and numbers of sources; empty where the model has written something else."""
    if not isinstance(insight, dict):
        return "", []
    text, sources = insight.get("text"), insight.get("sources")
    if not isinstance(text, str) or not isinstance(sources, list):
        return "", []
    return " ".join(text.split()), [number for number in sources if type(number) is int]


def _says_something(text: str, sources: Sequence[MemoryText]) -> bool:
    about = content_words(split_words(text))
    if not SHORTEST <= len(text) <= MAX_INSIGHT_LENGTH or len(about) < FEWEST:
        return False
    each = [content_words(split_words(source.text)) | content_words(split_words(source.speaker)) for source in sources]
    if len(about & frozenset[str]().union(*each)) < GROUNDED * len(about):
        return False
    return not any(len(about & words_) >= REPEATS * len(about | words_) for words_ in each)
