"""Which memories are near each other in meaning: every pair is looked at, block by block, so that memory stays bounded.

10,000 memories take about a second on two cores; the time grows with the square.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

#: Rows and columns of a block: 1,024 by 8,192 products are 32 MB.
ROWS, COLUMNS = 1024, 8192


def pairs(
    vectors: NDArray[np.float16], *, least: float, most: int, check: Callable[[], None] = lambda: None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Pairs of places (the smaller first) whose cosine is at least `least`, and the cosines.

    Of each place the `most` nearest behind it are told, so that a thousand equal texts are no million pairs. `check` is
    called between blocks.
    """
    places, cosines = [np.zeros((0, 2), dtype=np.int64)], [np.zeros(0, dtype=np.float32)]
    for begin in range(0, len(vectors), ROWS):
        check()
        left, right, found = _row_of_blocks(vectors, begin, least)
        kept = _nearest(left, found, most)
        places.append(np.stack([left[kept], right[kept]], axis=1))
        cosines.append(found[kept])
    return np.concatenate(places), np.concatenate(cosines)


def _row_of_blocks(
    vectors: NDArray[np.float16], begin: int, least: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    rows = vectors[begin : begin + ROWS].astype(np.float32)
    lefts, rights, founds = [], [], []
    for start in range(begin, len(vectors), COLUMNS):
        products = rows @ vectors[start : start + COLUMNS].astype(np.float32).T
        left, right = np.nonzero(products >= least)
        later = right + start > left + begin
        left, right = left[later], right[later]
        lefts.append(left + begin)
        rights.append(right + start)
        founds.append(products[left, right])
    return np.concatenate(lefts), np.concatenate(rights), np.concatenate(founds)


def _nearest(left: NDArray[np.int64], cosines: NDArray[np.float32], most: int) -> NDArray[np.int64]:
    """Which pairs to keep: for each place on the left those of the greatest cosines."""
    order = np.lexsort((-cosines, left))
    begins = np.searchsorted(left[order], left[order])
    return np.sort(order[np.arange(len(order)) - begins < most])
