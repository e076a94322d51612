"""`memory.insight`: ask the language model what follows from a group of memories. A child job of a meditation.

Suggestions are checked: an insight is accepted if it is well-formed, cites at least two memories, consists mostly of
their words, and says more than any one of them. It is stored in the job's row only, until the meditation has used it.
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
from pipelines.memory.quotes import cut_text
from pipelines.memory.words import content_words, split_words

KIND = "memory.insight"

#: Insights of one answer, characters of an insight, and the most tokens of the answer.
MAX_INSIGHTS, MAX_INSIGHT_LENGTH, MAX_ANSWER_TOKENS = 2, 300, 300

#: Characters of a memory that the prompt shows.
MAX_NOTE_LENGTH = 400

#: The least characters and content words of an insight, and the share of its content words that its sources contain.
MIN_INSIGHT_LENGTH, MIN_CONTENT_WORDS, MIN_GROUNDED_SHARE = 15, 3, 0.5

#: The Jaccard similarity with one source's words from which an insight merely repeats the source.
REPEATED_SIMILARITY = 0.8

INSTRUCTIONS = (
    "You read notes about people and say what follows from several of them together. Each insight is one plain "
    "sentence that no single note says, taken only from the notes; `sources` are the numbers of the notes that it "
    "follows from, at least two. If nothing follows, answer with an empty list."
)


def schema(notes: int) -> Mapping[str, Any]:
    """Build the JSON Schema of an answer about so many notes."""
    members = {"text": {"type": "string", "maxLength": MAX_INSIGHT_LENGTH}}
    return suggestions.suggestions_schema("insights", members, most=MAX_INSIGHTS, lines=notes, cited=notes)


def run(engine: Engine, attempt: Attempt) -> Ending:
    """Ask the model and keep the accepted insights. Raises the reason to stop, PermanentFailure and EngineError."""
    notes = suggestions.fitting_sources(engine, attempt, prompt, schema, MAX_ANSWER_TOKENS)
    if len(notes) < 2:
        return plain_ending(attempt, "completed", result={"found": 0, "tokens": 0})
    answer, finish = generate_json(engine, attempt, prompt(notes), schema(len(notes)), MAX_ANSWER_TOKENS)
    attempt.check()
    insights = list(accepted_insights(answer, notes))
    counts = {"found": len(insights), "tokens": finish.prompt_tokens + finish.generated_tokens}
    return suggestions.suggestion_ending(engine, attempt, finish, counts, {"insights": insights})


def prompt(notes: Sequence[MemoryText]) -> list[Message]:
    """Build the prompt about these memories."""
    lines = (
        f"[{number}] {memory.occurred_at:%Y-%m-%d} {memory.speaker}: {cut_text(memory.text, MAX_NOTE_LENGTH)}"
        for number, memory in enumerate(notes, start=1)
    )
    return [Message("system", INSTRUCTIONS), Message("user", "\n".join(["Notes:", *lines]))]


def accepted_insights(answer: str, notes: Sequence[MemoryText]) -> Iterator[dict[str, Any]]:
    """Yield the accepted insights of an answer, each with the ids and the digest of its sources."""
    for suggestion in suggestions.parse_suggestions(answer, "insights", MAX_INSIGHTS):
        text, numbers = _parse(suggestion)
        sources = [notes[number - 1] for number in sorted(set(numbers)) if 0 < number <= len(notes)]
        if len(sources) >= 2 and len(sources) == len(set(numbers)) and _is_acceptable(text, sources):
            yield {
                "text": text,
                "sources": [source.id for source in sources],
                "digest": scan.digest_texts(sources),
            }


def _parse(suggestion: Any) -> tuple[str, list[int]]:
    """Return a suggestion's text and source numbers; empty if it is malformed."""
    if not isinstance(suggestion, dict):
        return "", []
    text, sources = suggestion.get("text"), suggestion.get("sources")
    if not isinstance(text, str) or not isinstance(sources, list):
        return "", []
    return " ".join(text.split()), [number for number in sources if type(number) is int]


def _is_acceptable(text: str, sources: Sequence[MemoryText]) -> bool:
    """Return whether a text has content, is grounded in its sources, and does not merely repeat one of them."""
    words = content_words(split_words(text))
    if not MIN_INSIGHT_LENGTH <= len(text) <= MAX_INSIGHT_LENGTH or len(words) < MIN_CONTENT_WORDS:
        return False
    by_source = [
        content_words(split_words(source.text)) | content_words(split_words(source.speaker)) for source in sources
    ]
    if len(words & frozenset[str]().union(*by_source)) < MIN_GROUNDED_SHARE * len(words):
        return False
    return not any(len(words & each) >= REPEATED_SIMILARITY * len(words | each) for each in by_source)
