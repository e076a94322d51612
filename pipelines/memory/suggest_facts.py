"""`memory.fact`: ask the language model which facts a window of conversation contains. A child job of `memory.extract`.

Suggestions are checked: a fact is accepted if it is well-formed, cites its sources, and consists mostly of their words,
so that hallucinations do not become memories. At least one source must not be an assistant's answer.
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

#: Facts of one answer, characters of a fact and of each of its parts, and the most tokens of the answer.
MAX_FACTS, MAX_FACT_LENGTH, MAX_PART_LENGTH, MAX_ANSWER_TOKENS = 8, 240, 80, 600

#: Characters of a memory that the prompt shows.
MAX_LINE_LENGTH = 400

#: The share of a fact's content words that its sources must contain.
MIN_GROUNDED_SHARE = 0.6

INSTRUCTIONS = (
    "You read what was said in conversations, and write down the lasting facts about people in it: names, homes, jobs, "
    "relations, likes, plans. Each fact is one plain sentence in the words of what was said, with its subject (`user` "
    "for who says user), attribute and value; `sources` are the numbers of the lines that say it. Leave out greetings, "
    "questions, and what an assistant only supposes. If there is no such fact, answer with an empty list."
)

PARTS = ("subject", "attribute", "value")


def schema(lines: int) -> Mapping[str, Any]:
    """Build the JSON Schema of an answer about so many lines."""
    part = {"type": "string", "maxLength": MAX_PART_LENGTH}
    members = {"text": {"type": "string", "maxLength": MAX_FACT_LENGTH}, **dict.fromkeys(PARTS, part)}
    return suggestions.suggestions_schema("facts", members, most=MAX_FACTS, lines=lines, cited=4)


def run(engine: Engine, attempt: Attempt) -> Ending:
    """Ask the model and keep the accepted facts. Raises the reason to stop, PermanentFailure and EngineError."""
    lines = suggestions.fitting_sources(engine, attempt, prompt, schema, MAX_ANSWER_TOKENS)
    if not lines:
        return plain_ending(attempt, "completed", result={"found": 0})
    answer, finish = generate_json(engine, attempt, prompt(lines), schema(len(lines)), MAX_ANSWER_TOKENS)
    attempt.check()
    facts = list(accepted_facts(answer, lines))
    return suggestions.suggestion_ending(engine, attempt, finish, {"found": len(facts)}, {"facts": facts})


def prompt(lines: Sequence[MemoryText]) -> list[Message]:
    """Build the prompt about these memories."""
    return [
        Message("system", INSTRUCTIONS),
        Message("user", "\n".join(_format_line(number, memory) for number, memory in enumerate(lines, start=1))),
    ]


def _format_line(number: int, memory: MemoryText) -> str:
    text = cut_text(" ".join(memory.text.split()), MAX_LINE_LENGTH)
    return f"[{number}] {memory.occurred_at:%Y-%m-%d} {memory.speaker or 'user'}: {text}"


def accepted_facts(answer: str, lines: Sequence[MemoryText]) -> Iterator[dict[str, Any]]:
    """Yield the accepted facts of an answer, each with the ids and the digest of its sources."""
    for suggestion in suggestions.parse_suggestions(answer, "facts", MAX_FACTS):
        if (fact := _check(suggestion, lines)) is not None:
            yield fact


def _check(suggestion: Any, lines: Sequence[MemoryText]) -> dict[str, Any] | None:
    """Normalise a suggestion; None if it is malformed or not grounded in its sources."""
    if not isinstance(suggestion, dict) or not all(isinstance(suggestion.get(name), str) for name in ("text", *PARTS)):
        return None
    numbers = suggestion.get("sources")
    if not isinstance(numbers, list) or not all(type(number) is int and 0 < number <= len(lines) for number in numbers):
        return None
    sources = [lines[number - 1] for number in sorted(set(numbers))]
    text = " ".join(suggestion["text"].split())
    parts = {name: " ".join(suggestion[name].split()) for name in PARTS}
    if not all(parts.values()) or not _is_grounded(text, parts["value"], sources):
        return None
    return {
        "text": text,
        **parts,
        "sources": [source.id for source in sources],
        "digest": scan.digest_texts(sources),
    }


def _is_grounded(text: str, value: str, sources: Sequence[MemoryText]) -> bool:
    """Return whether a source other than the assistant is cited, and the sources contain the value and most words."""
    if len(text) > MAX_FACT_LENGTH or all(source.speaker == "assistant" for source in sources):
        return False
    fact_words, value_words = content_words(split_words(text)), content_words(split_words(value))
    source_words = frozenset({"user"}).union(
        *(content_words(split_words(f"{source.speaker} {source.text}")) for source in sources)
    )
    grounded = len(fact_words & source_words) >= MIN_GROUNDED_SHARE * len(fact_words)
    return len(fact_words) >= 2 and bool(value_words) and value_words <= source_words and grounded
