"""Given ids that are made one after another, then they sort so, and no two are alike."""

from concurrent.futures import ThreadPoolExecutor

from models.ids import new_id


def test_ids_sort_by_their_birth():
    born = [new_id("job") for _ in range(5000)]

    assert born == sorted(born)
    assert len({len(id_) for id_ in born}) == 1
    assert all(id_.startswith("job_") and id_[4:].isalnum() for id_ in born)


def test_threads_make_no_id_twice():
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new_id("x"), range(5000)))

    assert len(set(made)) == 5000
