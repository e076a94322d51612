"""Compare the passages of long memories with a query: a memory matches as well as its best passage."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.memory import passages
from models.memory.passages import MAX_COMPARED, PassageRows
from models.memory.recall_queries import CandidateRows
from models.memory.spaces import Space
from models.memory.vectors import Vector
from models.platform.database import Connection
from pipelines.memory.fusion import WEIGHTS

Scores = NDArray[np.float64]

#: Passages with the best lexical scores that are compared by meaning where not all are.
MAX_BY_TERMS = 500


@dataclass(frozen=True, slots=True)
class PassageMatches:
    """The passages that were compared with a query.

    lexical  their BM25 scores
    dense    the greatest cosine of a memory's passages by its ordinal, 0 without passages
    """

    rows: PassageRows
    lexical: Scores
    dense: Scores

    def raise_lexical(self, scores: Scores) -> Scores:
        """Return the lexical scores of memories, raised to those of their passages."""
        return _greatest(scores, self.rows.ordinals, self.lexical)

    def raise_dense(self, candidates: CandidateRows) -> Scores:
        """Return the cosines of candidates, raised to those of their passages."""
        known = candidates.ordinals < len(self.dense)
        best = self.dense[np.where(known, candidates.ordinals, 0)] if len(self.dense) else np.zeros(len(known))
        return np.where(known & (best > candidates.dense), best, candidates.dense)

    def best(self, ordinal: int) -> tuple[int, int] | None:
        """Return the first character and the length of a memory's best passage; None if it has none."""
        rows = np.flatnonzero(self.rows.ordinals == ordinal)
        if not len(rows):
            return None
        best = rows[np.argmax(self.rows.dense[rows] + WEIGHTS.lexical * self.lexical[rows])]
        return int(self.rows.starts[best]), int(self.rows.lengths[best])


def read_passages(connection: Connection, space: Space, vector: Vector, scores: Scores) -> PassageMatches:
    """Read the passages of a space and compare them with a query, given their lexical scores by number.

    In a space with many passages only those with the best lexical scores are compared.
    """
    numbers: list[int] | None = None
    if space.next_passage > MAX_COMPARED:
        best = np.argsort(-scores, kind="stable")[:MAX_BY_TERMS]
        numbers = best[scores[best] > 0].tolist()
    rows = passages.read(connection, space.id, vector, numbers)
    known = rows.numbers < len(scores)
    lexical = np.where(known, scores[np.where(known, rows.numbers, 0)], 0.0) if len(scores) else np.zeros(len(known))
    return PassageMatches(rows, lexical, _greatest(np.zeros(space.next_ordinal), rows.ordinals, rows.dense))


def _greatest(scores: Scores, ordinals: NDArray[np.int64], others: Scores) -> Scores:
    """Return scores by ordinal, raised to the greatest of those that are given for an ordinal."""
    raised = np.concatenate([scores, np.zeros(max(0, int(ordinals.max(initial=-1)) + 1 - len(scores)))])
    np.maximum.at(raised, ordinals, others)
    return raised
