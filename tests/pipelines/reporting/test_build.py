"""Given the job of a report, when it runs, is killed or repeated, then the report has one file of one snapshot."""

from datetime import UTC, datetime

import orjson
import pytest

from models.accounts import accounts, files
from models.accounts.accounts import Caller, Role
from models.accounts.plans import Limits
from models.jobs.jobs import NewJob
from models.platform.errors import Fenced, InvalidRequest, PermanentFailure, Unavailable
from models.platform.ids import new_id
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
from models.reports import reports
from pipelines.files.content import read_content
from pipelines.reporting import build
from pipelines.reporting.enqueue_report import enqueue_report
from pipelines.reporting.requested_report import RequestedReport
from tests.pipelines.reporting.report_tables import table

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def objects(tmp_path):
    return ObjectStore.open(Settings(data_dir=tmp_path))


@pytest.fixture
def owner(database):
    """A user with an account."""
    with database.transaction() as connection:
        member = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash=None)
    return Caller(member.user_id, member.account_id, Role.OWNER)


@pytest.fixture
def enqueue(database, owner):
    """`enqueue(…)` → the report that was asked for."""

    def enqueue(**fields):
        requested = RequestedReport(kind="usage", format="json", range="last_month", **fields)
        report_id = new_id("report")
        with database.transaction() as connection:
            enqueue_report(
                connection, requested, owner, Limits(), NOW, report_id=report_id, job_id=new_id("job"), asked={}
            )
            return reports.read(connection, report_id, owner.account_id)

    return enqueue


@pytest.fixture
def run(begin, objects, tmp_path):
    """`run(report, read)` → a new attempt at its job, and the ending."""

    def run(report, read=lambda connection, request: table()):
        attempt = begin(NewJob("report.build", report.account_id, {"report_id": report.id}, id=report.job_id))
        return attempt, build.run(objects, tmp_path, read, attempt)

    return run


@pytest.fixture
def content(database, objects, owner):
    """`content(file_id)` → the content of a file, parsed."""

    def content(file_id):
        with database.connection() as connection:
            file = files.read_any(connection, file_id, owner.account_id)
        return orjson.loads(b"".join(read_content(objects, file)))

    return content


def read_report(database, report):
    with database.connection() as connection:
        return reports.read(connection, report.id, report.account_id)


def test_the_period_of_a_report_is_the_one_before_the_time(enqueue, run):
    requests = []

    def read(connection, request):
        requests.append(request)
        level = connection.execute("SHOW transaction_isolation").fetchone()["transaction_isolation"]
        assert level == "repeatable read"
        return table()

    run(enqueue(time_zone="Europe/Berlin"), read)

    (request,) = requests
    assert request.start == datetime(2026, 9, 30, 22, tzinfo=UTC)
    assert request.end == datetime(2026, 10, 31, 23, tzinfo=UTC)


def test_the_report_is_completed_with_its_job(enqueue, run, settle, database, content):
    report = enqueue()

    attempt, ending = run(report)
    assert read_report(database, report).file_id is None
    settle(attempt, ending)

    completed = read_report(database, report)
    assert completed.status == "completed"
    assert content(completed.file_id)["rows"] == orjson.loads(build.render(table(), "json").content)["rows"]
    assert completed.outcome == {
        "rows": 6, "bytes": ending.result["bytes"], "snapshot": int(table().snapshot.timestamp())
    }  # fmt: skip


def test_an_attempt_that_finds_the_file_completes_the_report_with_its_numbers(
    enqueue, run, settle, database, content, objects
):
    # Given a worker that was killed after it stored the file
    report = enqueue()
    run(report)

    attempt, ending = run(report, lambda connection, request: pytest.fail("a later snapshot was read"))
    settle(attempt, ending)

    completed = read_report(database, report)
    assert completed.outcome["rows"] == len(content(completed.file_id)["rows"])


def test_an_attempt_that_was_superseded_stores_no_file(enqueue, run, settle, database, content, objects, begin):
    # Given an attempt that is about to store its file when another one begins
    report, rendered = enqueue(), build.render(table(2), "json")
    job = NewJob("report.build", report.account_id, {"report_id": report.id}, id=report.job_id)
    frozen = begin(job)
    frozen.report_progress(2, 3, resume={"rows": 4})

    def read(connection, request):
        # When it goes on after the other one has read its rows
        with pytest.raises(Fenced):
            build._store(objects, frozen, report, rendered)
        return table(5)

    settle(*run(report, read))
    # Then the file is that of the other one
    completed = read_report(database, report)
    assert completed.outcome["rows"] == len(content(completed.file_id)["rows"]) == 10


def unavailable(*arguments, **options):
    raise Unavailable("The object store is unavailable.")


def test_an_attempt_that_was_killed_before_it_stored_the_file_is_done_again(
    enqueue, run, settle, database, content, monkeypatch
):
    report = enqueue()

    with monkeypatch.context() as patched:
        patched.setattr(ObjectStore, "put", unavailable)
        with pytest.raises(Unavailable):
            run(report)
    attempt, ending = run(report, lambda connection, request: table(5))
    settle(attempt, ending)

    completed = read_report(database, report)
    assert completed.outcome["rows"] == len(content(completed.file_id)["rows"]) == 10


def test_what_cannot_be_built_fails_with_its_reason_and_is_not_tried_again(enqueue, run):
    def read(connection, request):
        raise InvalidRequest("The report has more than 100,000 groups.", code="too_many_groups")

    with pytest.raises(PermanentFailure) as failure:
        run(enqueue(), read)
    assert failure.value.code == "too_many_groups"


def test_a_report_with_too_many_rows_fails(enqueue, run, monkeypatch):
    monkeypatch.setattr(build, "MAX_ROWS", 5)

    with pytest.raises(PermanentFailure, match="The report has 6 rows, and at most 5 are possible") as failure:
        run(enqueue())
    assert failure.value.code == "too_many_groups"


def test_the_file_of_a_report_that_is_deleted_while_it_is_built_expires(enqueue, run, settle, database, owner):
    report = enqueue()
    attempt, ending = run(report)
    with database.connection() as connection:
        reports.delete(connection, report.id, report.account_id)

    settle(attempt, ending)

    with database.connection() as connection:
        row = connection.execute(
            "SELECT expires_at <= now() AS expired FROM files WHERE account_id = %s", (owner.account_id,)
        ).fetchone()
    assert row == {"expired": True}


def test_the_job_of_a_deleted_report_builds_nothing(enqueue, run, database):
    report = enqueue()
    with database.connection() as connection:
        reports.delete(connection, report.id, report.account_id)

    _, ending = run(report, lambda connection, request: pytest.fail("it was built"))

    assert (ending.state, ending.result) == ("completed", {"deleted": True})


@pytest.mark.parametrize(("scope", "audience"), [("user", "user"), ("account", "admins")])
def test_the_file_has_the_audience_of_the_report(enqueue, run, database, owner, scope, audience):
    _, ending = run(enqueue(scope=scope))

    with database.connection() as connection:
        file = files.read_any(connection, ending.result["file_id"], owner.account_id)
    assert (file.audience, file.purpose) == (audience, "report")
    assert file.user_id == (owner.user_id if scope == "user" else None)


def test_completion_is_an_event_and_an_email_to_each_recipient(enqueue, run, settle, database, owner):
    report = enqueue(deliver_to=[owner.user_id])

    for _ in range(2):  # the second time after a failover that lost the end of the job
        attempt, ending = run(report)
        settle(attempt, ending)
        with database.connection() as connection:
            connection.execute("UPDATE jobs SET state = 'queued', finished_at = NULL WHERE id = %s", (report.job_id,))

    with database.connection() as connection:
        recorded = connection.execute(
            "SELECT event_type, data FROM account_events WHERE account_id = %s ORDER BY id", (owner.account_id,)
        ).fetchall()
        emails = connection.execute(
            "SELECT arguments FROM jobs WHERE kind = 'email.send' AND arguments ->> 'report_id' = %s", (report.id,)
        ).fetchall()
    completed = [row["data"] for row in recorded if row["event_type"] == "report.completed"]
    assert completed == [{"id": report.id, "file_id": ending.result["file_id"]}]
    assert [row["arguments"]["user_id"] for row in emails] == [owner.user_id]


def test_expired_reports_are_pruned(enqueue, database):
    report = enqueue()
    with database.connection() as connection:
        connection.execute("UPDATE reports SET expires_at = now() WHERE id = %s", (report.id,))
        assert reports.prune(connection, 500) >= 1
        assert reports.read(connection, report.id, report.account_id) is None
