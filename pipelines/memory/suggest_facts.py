"""`memory.fact`: the language model is asked which facts stand in what was said. A child job of an extraction.

What it says is a suggestion. Only what is well-formed, cites what it follows from, and speaks the words of that is
kept: a model that makes things up makes no memories. Nobody is believed about a person but people: a fact cites
something that is no answer of an assistant's.
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

#: Facts of one answer, characters of a fact and of its parts, and the most tokens of the answer.
MAX_FACTS, MAX_FACT_LENGTH, MAX_PART_LENGTH, MAX_ANSWER_TOKENS = 8, 240, 80, 600

#: Characters of what was said that are told.
MAX_LINE_LENGTH = 400

#: The part of a fact's words that its sources must have.
GROUNDED = 0.6

INSTRUCTIONS = (
    "You read what was said in conversations, and write down the lasting facts about people in it: names, homes, jobs, "
    "relations, likes, plans. Each fact is one plain sentence in the words of what was said, with its subject (`user` "
    "for who says user), attribute and value; `sources` are the numbers of the lines that say it. Leave out greetings, "
    "questions, and what an assistant only supposes. If there is no such fact, answer with an empty list."
)

PARTS = ("subject", "attribute", "value")


def schema(lines: int) -> Mapping[str, Any]:
    """The JSON that the model must write about so many lines."""
    part = {"type": "string", "maxLength": MAX_PART_LENGTH}
    members = {"text": {"type": "string", "maxLength": MAX_FACT_LENGTH}, **dict.fromkeys(PARTS, part)}
    return suggestions.suggestions_schema("facts", members, most=MAX_FACTS, lines=lines, cited=4)


def run(engine: Engine, attempt: Attempt) -> Ending:
    """Ask, and keep what is worth keeping. Raises the reason to stop, PermanentFailure and EngineError."""
    said = suggestions.fitting_sources(engine, attempt, prompt, schema, MAX_ANSWER_TOKENS)
    if not said:
        return plain_ending(attempt, "completed", result={"found": 0})
    answer, finish = generate_json(engine, attempt, prompt(said), schema(len(said)), MAX_ANSWER_TOKENS)
    attempt.check()
    found = list(accepted_facts(answer, said))
    return suggestions.suggestion_ending(engine, attempt, finish, {"found": len(found)}, {"facts": found})


def prompt(said: Sequence[MemoryText]) -> list[Message]:
    """What the model is asked about these lines."""
    lines = (
        f"[{number}] {memory.occurred_at:%Y-%m-%d} {memory.speaker or 'user'}: {' '.join(memory.text.split())[:MAX_LINE_LENGTH]}"
        for number, memory in enumerate(said, start=1)
    )
    return [Message("system", INSTRUCTIONS), Message("user", "\n".join(lines))]


def accepted_facts(answer: str, said: Sequence[MemoryText]) -> Iterator[dict[str, Any]]:
    """What of an answer is worth keeping: facts, each with the ids and the digest of its sources."""
    for fact in suggestions.parse_suggestions(answer, "facts", MAX_FACTS):
        if (kept := _kept(fact, said)) is not None:
            yield kept


def _kept(fact: Any, said: Sequence[MemoryText]) -> dict[str, Any] | None:
    if not isinstance(fact, dict) or not all(isinstance(fact.get(name), str) for name in ("text", *PARTS)):
        return None
    numbers = fact.get("sources")
    if not isinstance(numbers, list) or not all(type(number) is int and 0 < number <= len(said) for number in numbers):
        return None
    sources = [said[number - 1] for number in sorted(set(numbers))]
    text, parts = " ".join(fact["text"].split()), {name: " ".join(fact[name].split()) for name in PARTS}
    if not all(parts.values()) or not _grounded(text, parts["value"], sources):
        return None
    return {"text": text, **parts, "sources": [s.id for s in sources], "digest": scan.digest_texts(sources)}


def _grounded(text: str, value: str, sources: Sequence[MemoryText]) -> bool:
    """Whether somebody who is no assistant is cited, and has said the value and most of the words."""
    if len(text) > MAX_FACT_LENGTH or all(source.speaker == "assistant" for source in sources):
        return False
    about, told = content_words(split_words(text)), content_words(split_words(value))
    heard = frozenset({"user"}).union(
        *(content_words(split_words(f"{source.speaker} {source.text}")) for source in sources)
    )
    return len(about) >= 2 and bool(told) and told <= heard and len(about & heard) >= GROUNDED * len(about)
