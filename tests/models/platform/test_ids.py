"""Generate ids."""

import uuid
from concurrent.futures import ThreadPoolExecutor

from models.platform.ids import IdGenerator, new_id


def test_ids_sort_by_time_of_creation():
    ids = [new_id("job") for _ in range(5000)]

    assert ids == sorted(ids)
    assert len({len(id_) for id_ in ids}) == 1
    assert all(id_.startswith("job_") and id_[4:].isalnum() for id_ in ids)


def test_concurrent_threads_get_different_ids():
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: new_id("x"), range(5000)))

    assert len(set(ids)) == 5000


def test_ids_from_a_seed_are_repeatable_and_have_its_timestamp():
    before, seed, after = new_id("seed"), new_id("seed"), new_id("seed")

    first, repeated, other = (
        [ids.new("a"), ids.new("a"), ids.new("b")] for ids in (IdGenerator(seed), IdGenerator(seed), IdGenerator(after))
    )

    assert first == repeated
    assert len({*first, *other}) == 6
    assert {uuid.UUID(id_.partition("_")[2]).version for id_ in first} == {7}
    assert all(id_[2:14] == seed[5:17] >= before[5:17] for id_ in first)


def test_ids_without_a_seed_are_new():
    assert IdGenerator().new("a") != IdGenerator().new("a")
