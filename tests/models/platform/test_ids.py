"""Given ids that are made one after another, then they sort so, and no two are alike."""

import uuid
from concurrent.futures import ThreadPoolExecutor

from models.platform.ids import IdGenerator, new_id


def test_ids_sort_by_their_birth():
    born = [new_id("job") for _ in range(5000)]

    assert born == sorted(born)
    assert len({len(id_) for id_ in born}) == 1
    assert all(id_.startswith("job_") and id_[4:].isalnum() for id_ in born)


def test_threads_make_no_id_twice():
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new_id("x"), range(5000)))

    assert len(set(made)) == 5000


def test_from_a_seed_come_the_same_ids_each_time_as_old_as_it_is():
    before, seed, after = new_id("seed"), new_id("seed"), new_id("seed")

    first, again, other = (
        [ids.new("a"), ids.new("a"), ids.new("b")] for ids in (IdGenerator(seed), IdGenerator(seed), IdGenerator(after))
    )

    assert first == again
    assert len({*first, *other}) == 6
    assert {uuid.UUID(made.partition("_")[2]).version for made in first} == {7}
    assert all(made[2:14] == seed[5:17] >= before[5:17] for made in first)


def test_without_a_seed_each_id_is_new():
    assert IdGenerator().new("a") != IdGenerator().new("a")
