"""Circuit breakers: when they open, who probes, and how they close."""

import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace

import pytest

from models.serving import breakers
from models.serving.breakers import (
    FIRST_COOLDOWN,
    LONGEST_COOLDOWN,
    MIN_FAILURES,
    MOST_FAILURES,
    TIMEOUTS_IN_A_ROW,
    WINDOW,
    Breaker,
    after_failure,
    cooldown,
    count_successes,
)
from models.serving.endpoint_results import EndpointResults

SOUND = Breaker("groq")


@pytest.fixture
def database(database):
    """The database without breakers."""
    with database.connection() as connection:
        connection.execute("DELETE FROM circuit_breakers")
    return database


@pytest.fixture
def results(database):
    """The results of one process."""
    return EndpointResults(database)


def breaker_of(database, upstream="groq"):
    with database.connection() as connection:
        return breakers.read(connection, upstream)


def update(database, assignments):
    with database.connection() as connection:
        connection.execute(f"UPDATE circuit_breakers SET {assignments}")


def force(database, state):
    with database.connection() as connection:
        breakers.force(connection, "groq", state)


def open_breaker(results):
    results.failed("groq", "job_a", "auth")


def open_with_due_probe(database, results):
    open_breaker(results)
    update(database, "probe_at = now()")


def failures_until_open(breaker, kind="overloaded"):
    for count in range(1, 100):
        breaker = after_failure(breaker, "job", kind)
        if breaker.state == "open":
            return count
    raise AssertionError("it stays closed")


def test_new_endpoint_opens_after_the_least_number_of_failures():
    assert failures_until_open(SOUND) == MIN_FAILURES


@pytest.mark.parametrize("failures", range(MOST_FAILURES))
def test_any_closed_breaker_opens_after_the_most_failures(failures):
    for requests in range(failures, WINDOW + 1):
        breaker = replace(SOUND, window_requests=requests, window_failures=failures)
        assert failures_until_open(breaker) <= MOST_FAILURES


def test_timeouts_in_a_row_open_a_breaker():
    assert failures_until_open(count_successes(SOUND, WINDOW), "timeout") == TIMEOUTS_IN_A_ROW


def test_timeouts_with_successes_in_between_do_not_open_a_breaker():
    breaker = SOUND
    for _ in range(100):
        breaker = after_failure(count_successes(breaker, 5), "job", "timeout")
        assert breaker.state == "closed"


@pytest.mark.parametrize("kind", ["auth", "quota"])
def test_what_fails_all_requests_opens_a_breaker_at_once(kind):
    opened = after_failure(SOUND, "job", kind)

    assert (opened.state, opened.open_reason) == ("open", kind)


@pytest.mark.parametrize("kind", ["bad_request", "content_filter", "rate_limited"])
def test_faults_of_a_request_are_not_counted(kind):
    assert after_failure(SOUND, "job", kind) == SOUND


@pytest.mark.parametrize("successes", [3, 4, 9])
def test_failures_of_a_quarter_of_the_requests_do_not_open_a_breaker(successes):
    breaker = SOUND
    for _ in range(200):
        breaker = after_failure(count_successes(breaker, successes), "job", "overloaded")
        assert breaker.state == "closed"


def test_failures_of_most_requests_open_a_breaker():
    breaker = count_successes(SOUND, WINDOW)
    for _ in range(20):
        breaker = after_failure(after_failure(breaker, "job", "refused"), "job", "refused")
        breaker = count_successes(breaker, 1)

    assert breaker.state == "open"


def test_failures_are_forgotten_after_successes():
    assert count_successes(after_failure(SOUND, "job", "overloaded"), 2 * WINDOW).is_sound


def test_cooldown_doubles_to_a_maximum():
    assert [cooldown(1), cooldown(2), cooldown(3)] == [FIRST_COOLDOWN, 2 * FIRST_COOLDOWN, 4 * FIRST_COOLDOWN]
    assert cooldown(1000) == LONGEST_COOLDOWN


def test_success_costs_no_statement_while_the_breaker_counts_no_failure(database, results, monkeypatch):
    assert results.admit("groq", "job_a").is_allowed
    monkeypatch.setattr(database, "connection", lambda: pytest.fail("a statement"))

    for _ in range(100):
        results.succeeded("groq", "job_a")


def test_successes_are_written_with_the_first_failure_only(database, results):
    # Given two processes with successes
    other = EndpointResults(database)
    for process in (results, other):
        process.admit("groq", "job_a")
        for _ in range(15):
            process.succeeded("groq", "job_a")

    # When both fail
    results.failed("groq", "job_a", "overloaded")
    after = other.failed("groq", "job_b", "overloaded")

    # Then the successes of the second one, which came before the first failure, do not count after it
    assert (after.window_requests, after.window_failures) == (17, 2)


def test_successes_after_a_failure_are_counted(database, results):
    results.failed("groq", "job_a", "overloaded")
    other = EndpointResults(database)
    other.admit("groq", "job_b")

    other.succeeded("groq", "job_b")

    assert (breaker_of(database).window_requests, breaker_of(database).window_failures) == (2, 1)


def test_open_breaker_refuses_and_says_for_how_long(results):
    open_breaker(results)

    admission = results.admit("groq", "job_b")

    assert (admission.is_allowed, admission.reason) == (False, "breaker_open")
    assert 0 < admission.retry_after <= FIRST_COOLDOWN


def test_each_endpoint_has_a_breaker_of_its_own(results):
    open_breaker(results)

    assert results.admit("corp", "job_b").is_allowed


def test_one_of_many_jobs_probes(database, results):
    # Given a breaker whose cooldown is over
    open_with_due_probe(database, results)

    # When many jobs ask at the same moment
    admissions, start = [], threading.Barrier(8)

    def ask(number):
        start.wait()
        admissions.append(EndpointResults(database).admit("groq", f"job_{number}"))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # Then one may
    assert Counter(admission.is_probe for admission in admissions) == {True: 1, False: 7}
    assert breaker_of(database).state == "half_open"


def test_successful_probe_closes_the_breaker(database, results):
    open_with_due_probe(database, results)
    assert results.admit("groq", "job_b").is_probe

    results.succeeded("groq", "job_b", is_probe=True)

    assert (breaker_of(database).state, breaker_of(database).openings) == ("closed", 0)
    assert results.admit("groq", "job_c").is_allowed


def test_failed_probe_doubles_the_cooldown(database, results):
    open_with_due_probe(database, results)
    results.admit("groq", "job_b")

    after = results.failed("groq", "job_b", "timeout")

    assert (after.state, after.openings) == ("open", 2)
    assert FIRST_COOLDOWN < after.probe_in <= 2 * FIRST_COOLDOWN


def test_probe_that_is_answered_with_429_closes_the_breaker_and_marks_the_endpoint_as_saturated(database, results):
    open_with_due_probe(database, results)
    results.admit("groq", "job_b")

    after = results.failed("groq", "job_b", "rate_limited", retry_after=60)

    assert after.state == "closed"
    assert 50 < after.saturated_for <= 60


@pytest.mark.parametrize("report", ["succeeded", "failed"])
def test_request_from_before_the_opening_changes_nothing(database, results, report):
    open_breaker(results)
    before = breaker_of(database)

    if report == "succeeded":
        results.succeeded("groq", "job_old")
    else:
        results.failed("groq", "job_old", "overloaded")

    assert replace(breaker_of(database), probe_in=0) == replace(before, probe_in=0)


def test_withdrawn_probe_passes_to_another_job(database, results):
    open_with_due_probe(database, results)
    results.admit("groq", "job_b")

    results.withdraw("groq", "job_b")

    assert results.admit("groq", "job_c").is_probe


def test_probe_lasts_while_its_worker_is_alive_and_is_replaced_when_it_has_died(database, results, job_store):
    # Given a probe that runs for longer than a worker has to begin it
    job = job_store.start(job_store.create_account())
    with database.connection() as connection:
        connection.execute(
            "INSERT INTO workers (name, host, pid, pools, queues, threads) "
            "VALUES ('worker', 'host', 1, '{upstream}', '{upstream.groq}', 1)"
        )
    open_with_due_probe(database, results)
    assert results.admit("groq", job.id).is_probe
    update(database, "probe_at = now()")

    # Then nobody else probes
    assert not results.admit("groq", "job_c").is_allowed

    # When its worker is silent for longer than its lease, then another job does
    with database.connection() as connection:
        connection.execute("UPDATE workers SET seen_at = now() - interval '1 minute'")
    assert results.admit("groq", "job_c").is_probe


def test_probe_continues_with_the_next_attempt_of_its_job(database, results):
    open_with_due_probe(database, results)
    results.admit("groq", "job_b")

    assert results.admit("groq", "job_b").is_probe


def test_429_does_not_open_a_breaker_but_refuses_until_the_time_it_names(database, results):
    for _ in range(20):
        after = results.failed("groq", "job_a", "rate_limited", retry_after=30)

    assert after.state == "closed"
    admission = results.admit("groq", "job_b")
    assert (admission.is_allowed, admission.reason) == (False, "endpoint_saturated")
    assert 20 < admission.retry_after <= 30
    update(database, "saturated_until = now()")
    assert results.admit("groq", "job_b").is_allowed


def test_forced_state_overrides_and_ends(database, results):
    open_breaker(results)

    force(database, "closed")
    assert results.admit("groq", "job_b").is_allowed

    force(database, "open")
    assert not results.admit("groq", "job_b").is_allowed
    update(database, "breaker_state = 'open', probe_at = now()")
    assert not results.admit("groq", "job_b").is_allowed  # no probe either

    force(database, None)
    assert results.admit("groq", "job_b").is_probe


def test_lost_opening_is_repeated(database, results):
    open_breaker(results)
    update(database, "breaker_state = 'closed', probe_at = NULL, openings = 0")  # a failover

    for number in range(MIN_FAILURES):
        results.failed("groq", f"job_{number}", "refused")

    assert breaker_of(database).state == "open"


def test_lost_closing_is_repeated_by_another_probe(database, results):
    open_with_due_probe(database, results)
    results.admit("groq", "job_b")
    results.succeeded("groq", "job_b", is_probe=True)
    update(database, "breaker_state = 'half_open', probe_job_id = 'job_b', probe_at = now()")  # a failover

    assert results.admit("groq", "job_c").is_probe


PROCESS = """
import sys
from models.platform.database import Database
from models.serving.endpoint_results import EndpointResults

database = Database(sys.argv[1], size=4)
results, asked = EndpointResults(database), 0
for _ in range(50):
    results.admit("groq", "job")
    results.succeeded("groq", "job")
print("ready", flush=True)
sys.stdin.readline()
for number in range(100):
    if not results.admit("groq", f"job_{sys.argv[2]}_{number}").is_allowed:
        break
    asked += 1
    results.failed("groq", f"job_{sys.argv[2]}_{number}", "overloaded")
print(asked, flush=True)
database.close()
"""


def test_several_processes_send_a_bounded_number_of_requests_to_an_endpoint_that_fails(database):
    # Given processes whose requests have succeeded
    count = 4
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, database.dsn, str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(count)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout.readline() == "ready\n"

    # When every request fails from now on
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    asked = sum(int(process.communicate(timeout=60)[0]) for process in processes)

    # Then the breaker opens after a bounded number, whatever the number of processes
    assert breaker_of(database).state == "open"
    assert MIN_FAILURES <= asked <= MOST_FAILURES + count - 1
