"""Which memories are near each other in meaning: every pair is looked at, block by block, so that memory stays bounded.

10,000 memories take about a second on two cores; the time grows with the square.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

#: Rows and columns of a block: 1,024 by 8,192 products are 32 MB.
ROWS, COLUMNS = 1024, 8192


def near_pairs(
    vectors: NDArray[np.float16], *, least: float, most: int, check: Callable[[], None] = lambda: None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Pairs of places (the smaller first) whose cosine is at least `least`, and the cosines.

    Of each place the `most` nearest behind it are told, so that a thousand equal texts are no million pairs. `check` is
    called between blocks.
    """
    places, cosines = [np.zeros((0, 2), dtype=np.int64)], [np.zeros(0, dtype=np.float32)]
    for begin in range(0, len(vectors), ROWS):
        check()
        left, right, found = _row_of_blocks(vectors, begin, least, most)
        kept = _nearest(left, found, most)
        places.append(np.stack([left[kept], right[kept]], axis=1))
        cosines.append(found[kept])
    return np.concatenate(places), np.concatenate(cosines)


def _row_of_blocks(
    vectors: NDArray[np.float16], begin: int, least: float, most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    rows = vectors[begin : begin + ROWS].astype(np.float32)
    lefts, rights, founds = [], [], []
    for start in range(begin, len(vectors), COLUMNS):
        products = rows @ vectors[start : start + COLUMNS].astype(np.float32).T
        if start == begin:  # a pair is told once, by its smaller place
            products[np.tril_indices(len(rows), 0, products.shape[1])] = -np.inf
        left, right = np.nonzero(_near(products, least, most))
        lefts.append(left + begin)
        rights.append(right + start)
        founds.append(products[left, right])
    return np.concatenate(lefts), np.concatenate(rights), np.concatenate(founds)


def _near(products: NDArray[np.float32], least: float, most: int) -> NDArray[np.bool_]:
    """Which of a block to look at. Where much is alike, no more than the `most` nearest of each row, the first of those
    that are equally near: a hundred thousand equal texts must not fill the memory."""
    near: NDArray[np.bool_] = products >= least
    if np.count_nonzero(near) <= 4 * most * len(products):
        return near
    last = np.partition(products, -most, axis=1)[:, -most, np.newaxis]
    nearer, tied = products > last, products == last
    room = most - np.count_nonzero(nearer, axis=1, keepdims=True)
    near &= nearer | (tied & (np.cumsum(tied, axis=1, dtype=np.int32) <= room))
    return near


def _nearest(left: NDArray[np.int64], cosines: NDArray[np.float32], most: int) -> NDArray[np.int64]:
    """Which pairs to keep: for each place on the left those of the greatest cosines."""
    order = np.lexsort((-cosines, left))
    begins = np.searchsorted(left[order], left[order])
    return np.sort(order[np.arange(len(order)) - begins < most])
