"""Check what the platform promises by its rows: no turn is lost, no event repeated, nothing charged twice.

A pass looks at what has ended or was posted since the last one, by indexes in the order of time, at unfinished turns,
and again at what it has found before. So its cost does not depend on the number of ended jobs. `sangha audit money`
compares all books, from the beginning.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, LiteralString, get_args

from models.jobs.leases import LEASE
from models.platform.database import Connection, Database, fetch_all, fetch_one

log = logging.getLogger(__name__)

Promise = Literal["lost_turns", "repeated_events", "double_charges", "unbalanced_postings"]

#: Seconds for which rows are left alone: their transactions may not have ended, or the sweeper repairs them.
GRACE = 8 * LEASE

#: Seconds that the first pass looks back, and seconds between two passes of all schedulers.
FIRST_WINDOW, INTERVAL = 3600.0, 60.0

#: Breaches of a promise that are kept.
MAX_BREACHES = 1000

# By the index `jobs_movable`, whose predicate this repeats: turns without a parent that have ended in the window.
ENDED = """
ended AS (
    SELECT id FROM jobs
    WHERE finished_at > %(since)s AND finished_at <= %(until)s AND parent_id IS NULL
      AND state IN ('completed', 'failed', 'cancelled')
      AND kind NOT IN ('embedding.create', 'tokens.count', 'memory.search') AND kind = 'turn.run'
    UNION SELECT unnest(%(known)s::text[])
)
"""

# A completed turn whose answer is not recorded; a running one whose worker has been silent for long; and a waiting one
# for which nothing is left to wait. The sweeper would have repaired the last two.
LOST_TURNS = f"""
WITH {ENDED}
SELECT jobs.id AS subject FROM ended JOIN jobs ON jobs.id = ended.id
WHERE kind = 'turn.run' AND state = 'completed'
  AND NOT EXISTS (SELECT FROM responses WHERE job_id = jobs.id AND usage IS NOT NULL)
UNION
SELECT id FROM jobs
WHERE state = 'running' AND kind = 'turn.run' AND NOT EXISTS (
    SELECT FROM workers WHERE name = jobs.worker AND seen_at > now() - make_interval(secs => %(grace)s))
UNION
SELECT id FROM jobs
WHERE state = 'waiting' AND kind = 'turn.run'
  AND coalesce(wait_until, '-infinity') < now() - make_interval(secs => %(grace)s)
  AND NOT EXISTS (
    SELECT FROM jobs AS child WHERE child.parent_id = jobs.id
      AND (child.finished_at IS NULL OR child.finished_at > now() - make_interval(secs => %(grace)s)))
"""

# The chunks of the archive follow each other from event 0 on, and each has a line for each of its events.
REPEATED_EVENTS = f"""
WITH {ENDED}
SELECT job_id AS subject FROM ended JOIN job_events ON job_id = id GROUP BY job_id
HAVING min(first_sequence) <> 0 OR sum(last_sequence - first_sequence + 1) <> max(last_sequence) + 1
    OR bool_or(length(events) - length(replace(events, E'\\n', '')) <> last_sequence - first_sequence)
"""

# Postings in the order of their ids, with a window of overlap. The usage of a job that is known to be posted wrongly is
# looked up by its account, whose postings have an index.
POSTED = """
recent AS (
    SELECT account_id, kind, reference, debit, credit, amount FROM postings
    WHERE id > coalesce((SELECT id FROM postings WHERE posted_at <= %(before)s ORDER BY id DESC LIMIT 1), 0)
      AND posted_at <= %(until)s
), usage AS (
    SELECT reference, sum(CASE WHEN debit = 'usage_unbilled' THEN amount ELSE -amount END) AS amount
    FROM recent WHERE kind = 'usage' GROUP BY reference
), known AS (
    SELECT split_part(subject, ' ', 1) AS kind, split_part(subject, ' ', 2) AS reference
    FROM unnest(%(known)s::text[]) AS subject
), posted AS (
    SELECT reference, amount, false AS is_known FROM usage
    UNION ALL
    SELECT reference, (SELECT sum(CASE WHEN debit = 'usage_unbilled' THEN amount ELSE -amount END) FROM postings
                       WHERE postings.account_id = usage_records.account_id AND postings.reference = known.reference
                         AND postings.kind = 'usage'), true
    FROM known JOIN usage_records ON job_id = reference WHERE known.kind = 'usage'
)
"""

# Usage that was posted more than once; more tokens than are in the journal; invoices that were paid more than once.
DOUBLE_CHARGES = f"""
WITH {POSTED}, {ENDED.replace("%(known)s::text[]", "ARRAY(SELECT reference FROM known WHERE kind = 'turn')")},
paid AS (
    SELECT DISTINCT invoice_id FROM recent JOIN payments ON payments.id = reference
    WHERE recent.kind = 'payment' AND invoice_id IS NOT NULL
    UNION SELECT reference FROM known WHERE kind = 'invoice'
)
SELECT 'usage ' || reference AS subject FROM posted JOIN usage_records ON job_id = reference
WHERE amount > coalesce(billed_amount, 0)
UNION
SELECT 'turn ' || ended.id FROM ended JOIN usage_records ON usage_records.job_id = ended.id
WHERE output_tokens > (SELECT sum(tokens) FROM job_events WHERE job_events.job_id = ended.id)
UNION
SELECT 'invoice ' || invoices.id FROM paid JOIN invoices ON invoices.id = invoice_id
WHERE total < (SELECT sum(amount - refunded) FROM payments
               WHERE payments.invoice_id = invoices.id AND state IN ('succeeded', 'refunded', 'disputed'))
"""

# A posting has both sides, so a sum of zero holds by construction. What may be missing is a leg, or a whole posting: of
# a reference, of an invoice's total, of a payment, or of usage that was recorded in the window.
UNBALANCED_POSTINGS = f"""
WITH {POSTED}, booked AS (
    SELECT kind, reference FROM recent WHERE kind <> 'usage' UNION SELECT kind, reference FROM known
), legs AS (
    SELECT kind, reference, count(*) AS legs, max(leg) AS last, count(DISTINCT currency) AS currencies,
           sum(CASE 'receivable' WHEN debit THEN amount WHEN credit THEN -amount ELSE 0 END) AS receivable
    FROM booked JOIN postings USING (kind, reference) WHERE kind <> 'usage' GROUP BY kind, reference
)
SELECT kind || ' ' || reference AS subject FROM legs
WHERE legs <> last + 1 OR currencies > 1
   OR kind = 'invoice' AND receivable <> (SELECT total FROM invoices WHERE id = reference)
   OR kind = 'payment' AND receivable <> (SELECT -amount FROM payments WHERE id = reference)
UNION
SELECT 'usage ' || reference FROM posted JOIN usage_records ON job_id = reference
WHERE (is_known OR created_at > %(since)s) AND amount < billed_amount
"""

STATEMENTS: Mapping[Promise, LiteralString] = {
    "lost_turns": LOST_TURNS,
    "repeated_events": REPEATED_EVENTS,
    "double_charges": DOUBLE_CHARGES,
    "unbalanced_postings": UNBALANCED_POSTINGS,
}

PROMISES: tuple[Promise, ...] = get_args(Promise)

INSERT = """
INSERT INTO promise_checks (promise, checked_to)
SELECT promise, now() - make_interval(secs => %(window)s) FROM unnest(%(promises)s::text[]) AS promise
ON CONFLICT (promise) DO NOTHING
"""

# The lock keeps other schedulers from the same pass.
BEGIN = """
SELECT checked_to AS since, now() - make_interval(secs => %(grace)s) AS until, breaches AS known,
       checked_to - make_interval(secs => %(grace)s) AS before
FROM promise_checks
WHERE promise = %(promise)s AND checked_to < now() - make_interval(secs => %(grace)s + %(interval)s * 0.9)
FOR UPDATE SKIP LOCKED
"""

END = "UPDATE promise_checks SET checked_to = %(until)s, breaches = %(breaches)s WHERE promise = %(promise)s"


def check_all(database: Database, *, grace: float = GRACE, interval: float = INTERVAL) -> None:
    """Check each promise, unless another scheduler does or has done so within the interval. Raises Unavailable."""
    with database.connection() as connection:
        connection.execute(INSERT, {"window": FIRST_WINDOW, "promises": list(PROMISES)})
    for promise in PROMISES:
        with database.transaction() as connection:
            _check(connection, promise, grace, interval)


def _check(connection: Connection, promise: Promise, grace: float, interval: float) -> None:
    window = fetch_one(connection, BEGIN, {"promise": promise, "grace": grace, "interval": interval})
    if window is None:
        return
    rows = fetch_all(connection, STATEMENTS[promise], {**window, "grace": grace})
    breaches = sorted(row["subject"] for row in rows)[:MAX_BREACHES]
    for subject in sorted(set(breaches) - set(window["known"])):
        log.error("The promise of no %s is broken by %s", promise.replace("_", " "), subject)
    connection.execute(END, {"promise": promise, "until": window["until"], "breaches": breaches})


@dataclass(frozen=True, slots=True)
class Check:
    """How many rows break a promise, and up to when it was checked."""

    breaches: int
    checked_to: datetime


RESULTS = "SELECT promise, cardinality(breaches) AS breaches, checked_to FROM promise_checks"


def results(connection: Connection) -> dict[Promise, Check]:
    """Return the results of the last checks by promise; none before the first one."""
    return {row["promise"]: Check(row["breaches"], row["checked_to"]) for row in fetch_all(connection, RESULTS)}
