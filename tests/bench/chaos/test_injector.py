"""Given a seed and a length, when a run is planned, then the plan is reproducible, and can be carried out."""

from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from bench.chaos.endpoint_faults import WAYS
from bench.chaos.fault import names_in
from bench.chaos.faults import faults
from bench.chaos.injector import QUIET, FaultInjector, PlannedFault, plan
from bench.chaos.processes import LINKS, QUEUE_LINKS, SCHEDULERS, SERVERS, UPSTREAM, WEBS, WORKERS

TABLES = [faults([*LINKS, *QUEUE_LINKS], spills=True), faults(LINKS)]

#: The default length in seconds: the shortest that has every fault, whatever the seed.
DEFAULT = 300.0

seeds = st.integers(0, 2**32)
tables = st.sampled_from(TABLES)


@given(seeds, st.floats(1, 600), tables)
@settings(max_examples=30)
def test_the_same_seed_length_and_faults_give_the_same_plan(seed, seconds, table):
    assert plan(seed, seconds, table) == plan(seed, seconds, dict(table))


@given(seeds, tables)
@settings(max_examples=50)
def test_a_run_of_the_default_length_has_every_fault(seed, table):
    assert {each.fault for each in plan(seed, DEFAULT, table)} == set(table)


@given(seeds, st.floats(1, 600), tables)
@settings(max_examples=50)
def test_a_plan_keeps_to_its_time_and_order(seed, seconds, table):
    planned = plan(seed, seconds, table)

    assert all(each.at >= QUIET and each.until + QUIET <= seconds for each in planned)
    assert [each.at for each in planned] == sorted(each.at for each in planned)
    assert all(table[each.fault].duration[0] <= each.duration <= table[each.fault].duration[1] for each in planned)
    assert all(each.target in table[each.fault].targets for each in planned)


@given(seeds, tables)
@settings(max_examples=50)
def test_at_most_two_faults_are_active_and_never_on_the_same_target(seed, table):
    planned = plan(seed, DEFAULT, table)

    for each in planned:
        others = [other for other in planned if other is not each and is_active(other, each.at)]
        assert len(others) <= 1
        assert not {name for other in others for name in names_in(other.target)} & set(names_in(each.target))


@given(seeds, tables)
@settings(max_examples=50)
def test_nothing_else_happens_while_two_versions_run(seed, table):
    planned = plan(seed, DEFAULT, table)

    for each in planned:
        if table[each.fault].alone:
            assert not any(is_active(other, each.at) or is_active(each, other.at) for other in planned if other != each)


def is_active(fault: PlannedFault, at: float) -> bool:
    return fault.at <= at < fault.until


def test_some_faults_overlap():
    planned = plan(7, 10 * DEFAULT, TABLES[0])

    overlapping = [later for earlier, later in pairwise(planned) if is_active(earlier, later.at)]

    assert 0.1 < len(overlapping) / len(planned) < 0.6


def test_in_an_hour_each_fault_has_all_of_its_targets():
    planned = plan(7, 3600, TABLES[0])

    assert {(each.fault, each.target) for each in planned} == {
        (name, target) for name, fault in TABLES[0].items() for target in fault.targets
    }


def test_every_process_and_every_link_is_a_target():
    targets = {name for fault in TABLES[0].values() for target in fault.targets for name in names_in(target)}

    assert targets == {*WEBS, *WORKERS, UPSTREAM, *SCHEDULERS, *SERVERS, *LINKS, *QUEUE_LINKS, *WAYS}


class FakeStack:
    """A stack without processes that records what happens."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.stopping: set[str] = set()
        self.children: dict[str, object] = {}

    def supervise(self) -> None:
        pass


def test_the_last_fault_is_injected_after_the_clients_end_even_when_it_is_late():
    stack = FakeStack()

    def inject(stack, target):
        stack.calls.append(target)

    links = list(LINKS)
    table = {"slow-link": replace(TABLES[1]["slow-link"], targets=links, inject=inject, heal=lambda *_: None)}
    planned = [PlannedFault(number * 0.001, "slow-link", name, 0.0) for number, name in enumerate(links)]
    injector = FaultInjector(stack, planned, table, lambda: stack.calls.append("the clients end"))

    injector.run(0.01, lambda line: None)

    assert stack.calls[-2:] == ["the clients end", links[-1]]
    assert len(stack.calls) < len(links)


def test_an_excluded_fault_is_not_injected_any_more():
    # Given a plan of two faults
    stack = FakeStack()
    faults = [
        replace(TABLES[1][name], inject=lambda stack, target: stack.calls.append(target), heal=lambda *_: None)
        for name in ("slow-link", "cut-link")
    ]
    planned = [PlannedFault(number * 0.001, fault.name, fault.targets[0], 0.0) for number, fault in enumerate(faults)]
    injector = FaultInjector(stack, planned, {fault.name: fault for fault in faults})
    # When one of them is excluded
    injector.exclude("cut-link")
    # Then the other one alone is injected, and the run ends
    injector.run(0.01, lambda line: None)
    assert stack.calls == [faults[0].targets[0]]
    assert injector.idle
