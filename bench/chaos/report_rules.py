"""Rules about reports: the sums of quarter hours equal the usage records, and so does what reports say of them."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from bench.chaos.report_clients import COUNTED
from bench.chaos.transcripts import ClientTranscript
from bench.chaos.violations import Violation
from models.platform.database import Connection, Database, fetch_all
from models.reports import usage_sums
from models.reports.selection import Selection
from pipelines.reporting.update_rollups import update, update_next_account

ALL_TIMES = Selection(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC), groups=("account_id",))

RECORDS = """
SELECT account_id, coalesce(billed_currency, '') AS currency, count(*) AS jobs,
       sum(input_tokens)::bigint AS input_tokens, sum(cached_tokens)::bigint AS cached_tokens,
       sum(output_tokens)::bigint AS output_tokens, sum(coalesce(billed_amount, 0)) AS amount
FROM usage_records GROUP BY account_id, coalesce(billed_currency, '')
"""

#: The sums of a group, which has an account and a currency.
Sums = Mapping[tuple[str, str], Mapping[str, Any]]


def check(
    database: Database,
    transcripts: Sequence[ClientTranscript],
    excused: Collection[str] = (),
    *,
    lost_commits: bool = False,
) -> Iterator[Violation]:
    """Check the sums as an interrupted update has left them and after another one, and the reports.

    lost_commits  a failover has lost commits: later reports may have less than earlier ones
    """
    with database.connection() as connection:
        yield from check_sums(connection, "as the last update left them")
    update(database)
    while update_next_account(database):
        pass
    with database.connection() as connection:
        yield from check_sums(connection, "after an update")
        records = _records(connection)
    by_client = defaultdict[str, list[ClientTranscript]](list)
    for transcript in transcripts:
        if transcript.kind == "report" and transcript.ended is not None and transcript.key not in excused:
            by_client[transcript.client].append(transcript)
    for received in by_client.values():
        yield from check_received(received, records, lost_commits=lost_commits)


def check_sums(connection: Connection, when: str) -> Iterator[Violation]:
    """Compare what reports read of all accounts with the sum over their records."""
    rows = usage_sums.usage(connection, ALL_TIMES)
    read = {(row["account_id"], row["currency"]): {name: row[name] for name in (*COUNTED, "amount")} for row in rows}
    records = _records(connection)
    for group in sorted(read.keys() | records.keys()):
        if read.get(group) != records.get(group):
            detail = f"{when}, reports have {read.get(group)}, the records {records.get(group)}"
            yield Violation("reports", " ".join(group), detail)


def check_received(
    transcripts: Sequence[ClientTranscript], records: Sums, *, lost_commits: bool = False
) -> Iterator[Violation]:
    """Check the reports of one client, in the order in which it has asked for them."""
    read = list[tuple[ClientTranscript, Mapping[str, int]]]()
    for transcript in transcripts:
        final: Mapping[str, Any] = transcript.final or {}
        if final.get("status") != "completed" or not final["table"]:
            yield Violation("ends", transcript.subject, f"its status is {final.get('status')}: {final.get('error')}")
            continue
        totals, rows = final["table"]["totals"], final["table"]["rows"]
        added = {name: sum(row[name] for row in rows) for name in COUNTED}
        if added != {name: totals[name] for name in COUNTED}:
            yield Violation("reports", transcript.subject, f"its rows have {added}, its totals are {totals}")
        read.append((transcript, added))
    if not lost_commits:
        yield from _check_growth(read, records)


def _check_growth(read: Sequence[tuple[ClientTranscript, Mapping[str, int]]], records: Sums) -> Iterator[Violation]:
    """Check that no report has less than the one before, and the last one not more than there is in the end."""
    if not read:
        return
    last, _ = read[-1]
    in_the_end = {
        name: sum(row[name] for (account, _), row in records.items() if account == last.account) for name in COUNTED
    }
    for (_, before), (transcript, after) in pairwise([*read, (last, in_the_end)]):
        if any(after[name] < before[name] for name in COUNTED):
            yield Violation("reports", transcript.subject, f"{before} became {after}")


def _records(connection: Connection) -> Sums:
    return {(row.pop("account_id"), row.pop("currency")): row for row in map(dict, fetch_all(connection, RECORDS))}
