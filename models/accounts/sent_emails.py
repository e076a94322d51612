"""Count the e-mails to a mailbox, so that nobody can flood it by triggering them."""

import hashlib

from models.platform.database import Connection, fetch_one

#: Minutes within which e-mails are counted.
MINUTES = 60

# Counts of one mailbox are serialised.
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('mailbox ' || encode(%(recipient)s, 'hex'), 0))"

# A repeated attempt of a job counts once.
COUNT = """
SELECT count(*)::int AS sent FROM sent_emails
WHERE recipient = %(recipient)s AND template = %(template)s AND job_id <> %(job_id)s
  AND sent_at > now() - make_interval(mins => %(minutes)s)
"""

INSERT = """
INSERT INTO sent_emails (job_id, recipient, template) VALUES (%(job_id)s, %(recipient)s, %(template)s)
ON CONFLICT (job_id) DO NOTHING
"""


def admit(connection: Connection, job_id: str, address: str, template: str, limit: int) -> bool:
    """Count an e-mail of a template to an address. Returns False if it would exceed `limit` within MINUTES.

    Call it in a transaction: it locks the mailbox until the end.
    """
    recipient = hashlib.sha256(address.lower().encode()).digest()
    parameters = {"job_id": job_id, "recipient": recipient, "template": template, "minutes": MINUTES}
    connection.execute(LOCK, parameters)
    row = fetch_one(connection, COUNT, parameters)
    if row is not None and row["sent"] >= limit:
        return False
    connection.execute(INSERT, parameters)
    return True


PRUNE = """
DELETE FROM sent_emails WHERE job_id IN (
    SELECT job_id FROM sent_emails WHERE sent_at < now() - make_interval(mins => %(minutes)s) LIMIT %(batch)s)
"""


def prune(connection: Connection, batch: int) -> int:
    """Delete at most `batch` counts that are no longer needed. Returns how many."""
    return connection.execute(PRUNE, {"minutes": MINUTES, "batch": batch}).rowcount
