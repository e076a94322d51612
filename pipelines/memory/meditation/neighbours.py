"""Find pairs of near vectors by computing all cosines block by block, so that memory stays bounded.

10,000 vectors take about 1 s on two cores; the time grows with the square of their number.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

#: Rows and columns of a block: 1,024 x 8,192 single-precision products are 32 MB.
ROWS, COLUMNS = 1024, 8192


def near_pairs(
    vectors: NDArray[np.float16], *, least: float, most: int, check: Callable[[], None] = lambda: None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the pairs of rows (the smaller first) of unit vectors whose cosine is at least `least`, and the cosines.

    most   pairs of each row with later ones, the nearest, so that 1,000 equal vectors are not 500,000 pairs
    check  is called between blocks
    """
    pairs, cosines = [np.zeros((0, 2), dtype=np.int64)], [np.zeros(0, dtype=np.float32)]
    for start in range(0, len(vectors), ROWS):
        check()
        left, right, products = _pairs_of_rows(vectors, start, least, most)
        kept = _nearest_pairs(left, products, most)
        pairs.append(np.stack([left[kept], right[kept]], axis=1))
        cosines.append(products[kept])
    return np.concatenate(pairs), np.concatenate(cosines)


def _pairs_of_rows(
    vectors: NDArray[np.float16], start: int, least: float, most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return the left rows, right rows and cosines of the pairs of ROWS vectors with themselves and all later ones."""
    rows = vectors[start : start + ROWS].astype(np.float32)
    lefts, rights, cosines = [], [], []
    for column in range(start, len(vectors), COLUMNS):
        products = rows @ vectors[column : column + COLUMNS].astype(np.float32).T
        if column == start:  # only pairs above the diagonal
            products[np.tril_indices(len(rows), 0, products.shape[1])] = -np.inf
        left, right = np.nonzero(_near(products, least, most))
        lefts.append(left + start)
        rights.append(right + column)
        cosines.append(products[left, right])
    return np.concatenate(lefts), np.concatenate(rights), np.concatenate(cosines)


def _near(products: NDArray[np.float32], least: float, most: int) -> NDArray[np.bool_]:
    """Mask the products of at least `least`.

    If there are many, mask only the `most` nearest of each row, the first ones of equal products: 100,000 equal vectors
    must not exhaust memory.
    """
    near: NDArray[np.bool_] = products >= least
    if np.count_nonzero(near) <= 4 * most * len(products):
        return near
    last = np.partition(products, -most, axis=1)[:, -most, np.newaxis]
    nearer, tied = products > last, products == last
    room = most - np.count_nonzero(nearer, axis=1, keepdims=True)
    near &= nearer | (tied & (np.cumsum(tied, axis=1, dtype=np.int32) <= room))
    return near


def _nearest_pairs(left: NDArray[np.int64], cosines: NDArray[np.float32], most: int) -> NDArray[np.int64]:
    """Return the indexes of the pairs to keep: for each left row those with the greatest cosines."""
    order = np.lexsort((-cosines, left))
    starts = np.searchsorted(left[order], left[order])
    return np.sort(order[np.arange(len(order)) - starts < most])
