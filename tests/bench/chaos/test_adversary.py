"""Given a seed and a length, when the adversary plans, then it is the same plan each time, and can be carried out."""

from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from bench.chaos.adversary import QUIET, Adversary, Stroke, plan
from bench.chaos.arena import LINKS, QUEUE_LINKS, SCHEDULERS, SERVERS, WEBS, WORKERS
from bench.chaos.faults import faults, parts_of

TABLES = [faults([*LINKS, *QUEUE_LINKS]), faults(LINKS)]

#: The default length in seconds: the shortest that has every fault, whatever the seed.
DEFAULT = 240.0

seeds = st.integers(0, 2**32)
tables = st.sampled_from(TABLES)


@given(seeds, st.floats(1, 600), tables)
@settings(max_examples=30)
def test_the_same_seed_length_and_faults_make_the_same_plan(seed, seconds, table):
    assert plan(seed, seconds, table) == plan(seed, seconds, dict(table))


@given(seeds, tables)
@settings(max_examples=50)
def test_a_run_of_the_default_length_has_every_fault(seed, table):
    assert {stroke.fault for stroke in plan(seed, DEFAULT, table)} == set(table)


@given(seeds, st.floats(1, 600), tables)
@settings(max_examples=50)
def test_a_plan_keeps_to_its_time_and_order(seed, seconds, table):
    strokes = plan(seed, seconds, table)

    assert all(stroke.at >= QUIET and stroke.until + QUIET <= seconds for stroke in strokes)
    assert [stroke.at for stroke in strokes] == sorted(stroke.at for stroke in strokes)
    assert all(table[stroke.fault].hold[0] <= stroke.hold <= table[stroke.fault].hold[1] for stroke in strokes)
    assert all(stroke.target in table[stroke.fault].targets for stroke in strokes)


@given(seeds, tables)
@settings(max_examples=50)
def test_at_most_two_faults_stand_at_a_time_and_never_on_the_same_part(seed, table):
    strokes = plan(seed, DEFAULT, table)

    for stroke in strokes:
        beside = [other for other in strokes if other is not stroke and stands(other, stroke.at)]
        assert len(beside) <= 1
        assert not {part for other in beside for part in parts_of(other.target)} & set(parts_of(stroke.target))


def stands(stroke: Stroke, at: float) -> bool:
    return stroke.at <= at < stroke.until


def test_faults_overlap_now_and_then():
    strokes = plan(7, 10 * DEFAULT, TABLES[0])

    overlapping = [later for earlier, later in pairwise(strokes) if stands(earlier, later.at)]

    assert 0.1 < len(overlapping) / len(strokes) < 0.6


def test_in_an_hour_each_fault_strikes_all_of_its_targets():
    strokes = plan(7, 3600, TABLES[0])

    assert {(stroke.fault, stroke.target) for stroke in strokes} == {
        (name, target) for name, fault in TABLES[0].items() for target in fault.targets
    }


def test_every_part_and_every_link_is_struck():
    targets = {part for fault in TABLES[0].values() for target in fault.targets for part in parts_of(target)}

    assert targets == {*WEBS, *WORKERS, *SCHEDULERS, *SERVERS, *LINKS, *QUEUE_LINKS}


class Unbroken:
    """An arena of which nothing can be broken, and that strikes no faster than the adversary looks."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.leaving: set[str] = set()

    def supervise(self) -> None:
        pass


def test_the_last_fault_strikes_once_the_clients_begin_no_more_however_late_it_is():
    arena = Unbroken()

    def strike(arena, target):
        arena.told.append(target)

    links = list(LINKS)
    table = {"slow-link": replace(TABLES[1]["slow-link"], targets=links, strike=strike, heal=lambda *_: None)}
    strokes = [Stroke(place * 0.001, "slow-link", name, 0.0) for place, name in enumerate(links)]
    adversary = Adversary(arena, strokes, table, lambda: arena.told.append("the clients end"))

    adversary.run(0.01, lambda line: None)

    assert arena.told[-2:] == ["the clients end", links[-1]]
    assert len(arena.told) < len(links)
