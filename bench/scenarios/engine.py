"""Tokens a second: how much of the bare engine's speed reaches the clients.

The machine's speed changes while we measure, so both sides take turns, as bare, ours, ours, bare, with our engine's
wrapper alone in the middle, and each round of that gives one ratio.
"""

from collections.abc import Sequence

from bench.bare import BareEngine, How, bare_engine
from bench.bench import Bench
from bench.figures import Figure, at_least
from bench.load import closed_loop
from bench.stack import FORGETFUL, Platform

TOKENS = 128

#: Of the engine, at least: the default.
SLOTS = 4

#: Answers of each side in a quarter of a round, by how many are given at once.
ANSWERS = {1: 2, 4: 4, 8: 8}

#: Rounds, by how many are given at once.
ROUNDS = {1: 5, 4: 4, 8: 2}

#: By how many at once the goal is set.
GOALS = {1: at_least(0.95), 4: at_least(0.95)}

#: None of them lets the model stop early.
PROMPTS = (
    "Write a long story about a river.",
    "Tell me everything about the history of bread.",
    "Write a long story about a lighthouse keeper.",
    "Explain in great detail how a steam engine works.",
)


def tokens_per_second(bench: Bench) -> Sequence[Figure]:
    """Through the platform ÷ bare, and what our engine's wrapper has of the difference; both have as many slots."""
    figures: list[Figure] = []
    for at_once, answers in ANSWERS.items():
        slots = max(at_once, SLOTS)
        with bench.stack.platform(slots=slots) as platform, bare_engine(platform.settings) as engine:
            sides = Sides(platform, engine, at_once, answers)
            sides.platform(), sides.bare("bare")  # fill the prompt caches
            rounds = []
            for number in range(ROUNDS[at_once]):
                bench.progress.step(number, ROUNDS[at_once], f"rounds with {at_once} at once")
                rounds.append(sides.round())
            figures += figures_of(at_once, rounds)
    return figures


class Sides:
    """The platform and the bare engine, asked for the same."""

    def __init__(self, platform: Platform, engine: BareEngine, at_once: int, answers: int) -> None:
        self._platform = platform
        self._engine = engine
        self._at_once = at_once
        self._prompts = [PROMPTS[number % len(PROMPTS)] for number in range(answers)]

    def platform(self) -> float:
        """Tokens a second through the platform."""
        options = {"max_output_tokens": TOKENS, "temperature": 0, **FORGETFUL}
        bodies = [{"input": prompt, **options} for prompt in self._prompts]
        tokens = [*self._platform.tokens(1)] * self._at_once
        return closed_loop(self._platform.address, tokens, bodies).tokens_a_second

    def bare(self, how: How) -> float:
        """Tokens a second without it."""
        return self._engine.say(how, self._prompts, TOKENS, self._at_once).tokens_a_second

    def round(self) -> tuple[float, float, float]:
        """Tokens a second: bare, wrapped, through the platform."""
        first, before = self.bare("bare"), self.platform()
        wrapped = self.bare("wrapped")
        after, last = self.platform(), self.bare("bare")
        return (first + last) / 2, wrapped, (before + after) / 2


def figures_of(at_once: int, rounds: Sequence[tuple[float, float, float]]) -> list[Figure]:
    """The ratios, and the speed that they are ratios of."""
    return [
        Figure(f"tokens/s ÷ bare engine's, {at_once} at once", "x", [ours / bare for bare, _, ours in rounds],
               GOALS.get(at_once)),
        Figure(f"our engine's wrapper ÷ bare engine, {at_once} at once", "x", [own / bare for bare, own, _ in rounds]),
        Figure(f"the bare engine's tokens, {at_once} at once", "/s", [bare for bare, _, _ in rounds]),
    ]  # fmt: skip
