"""Tokens a second: how much of the bare engine's speed reaches the clients.

The machine's speed varies during a run, so both sides alternate: bare, platform, platform, bare, with our engine
wrapper alone in the middle. Each such round gives one ratio.
"""

from collections.abc import Sequence

from bench.bare_engine import BareEngine, Variant, bare_engine
from bench.figures import Figure, at_least
from bench.harness.stack import WITHOUT_MEMORY, RunningPlatform
from bench.load import closed_loop
from bench.scenario import Bench

TOKENS = 128

#: The least number of slots: the default.
SLOTS = 4

#: Answers of each side in a quarter of a round, and rounds, by how many answers are generated in parallel.
ANSWERS = {1: 2, 4: 4, 8: 8}
ROUNDS = {1: 5, 4: 4, 8: 2}

GOALS = {1: at_least(0.95), 4: at_least(0.95), 8: at_least(0.95)}

#: With these prompts the model does not stop early.
PROMPTS = (
    "Write a long story about a river.",
    "Tell me everything about the history of bread.",
    "Write a long story about a lighthouse keeper.",
    "Explain in great detail how a steam engine works.",
)


def tokens_per_second(bench: Bench) -> Sequence[Figure]:
    """Compare the platform, and our engine wrapper, with the bare engine; all have the same slots."""
    figures: list[Figure] = []
    for parallel, answers in ANSWERS.items():
        slots = max(parallel, SLOTS)
        with bench.stack.platform(slots=slots) as platform, bare_engine(platform.settings) as engine:
            comparison = Comparison(platform, engine, parallel, answers)
            comparison.platform(), comparison.engine("bare")  # fill the prompt caches
            rounds = []
            for number in range(ROUNDS[parallel]):
                bench.progress.step(number, ROUNDS[parallel], f"rounds with {parallel} at once")
                rounds.append(comparison.round())
            figures += figures_of(parallel, rounds)
    return figures


class Comparison:
    """The platform and the bare engine, with the same prompts."""

    def __init__(self, platform: RunningPlatform, engine: BareEngine, parallel: int, answers: int) -> None:
        self._platform = platform
        self._engine = engine
        self._parallel = parallel
        self._prompts = [PROMPTS[number % len(PROMPTS)] for number in range(answers)]

    def platform(self) -> float:
        """Measure tokens a second through the platform."""
        options = {"max_output_tokens": TOKENS, "temperature": 0, **WITHOUT_MEMORY}
        bodies = [{"input": prompt, **options} for prompt in self._prompts]
        tokens = [*self._platform.tokens(1)] * self._parallel
        return closed_loop(self._platform.address, tokens, bodies).tokens_a_second

    def engine(self, variant: Variant) -> float:
        """Measure tokens a second without the platform."""
        return self._engine.generate(variant, self._prompts, TOKENS, self._parallel).tokens_a_second

    def round(self) -> tuple[float, float, float]:
        """Measure tokens a second: bare, wrapped, through the platform."""
        first, before = self.engine("bare"), self.platform()
        wrapped = self.engine("wrapped")
        after, last = self.platform(), self.engine("bare")
        return (first + last) / 2, wrapped, (before + after) / 2


def figures_of(parallel: int, rounds: Sequence[tuple[float, float, float]]) -> list[Figure]:
    """Return the ratios, and the bare engine's speed."""
    return [
        Figure(f"tokens/s ÷ bare engine's, {parallel} at once", "x", [ours / bare for bare, _, ours in rounds],
               GOALS.get(parallel)),
        Figure(f"our engine's wrapper ÷ bare engine, {parallel} at once", "x", [own / bare for bare, own, _ in rounds]),
        Figure(f"the bare engine's tokens, {parallel} at once", "/s", [bare for bare, _, _ in rounds]),
    ]  # fmt: skip
