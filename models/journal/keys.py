"""The keys of journals in Redis.

In Redis Cluster the keys of a job have its id as hash tag, so that they are on one node. Elsewhere they have none: the
names are those that earlier versions use, which run beside this one during a rolling deploy.
"""

PREFIX, STREAM_PREFIX = "sangha:journal:", "sangha:events:"


def hash_key(job_id: str, *, tagged: bool = False) -> str:
    """Return the key of a journal's hash."""
    return PREFIX + _tag(job_id, tagged)


def stream_key(job_id: str, *, tagged: bool = False) -> str:
    """Return the key of a job's event stream."""
    return STREAM_PREFIX + _tag(job_id, tagged)


def job_id_of(journal_key: str) -> str:
    """Return the job id in the key of a journal's hash."""
    return journal_key.removeprefix(PREFIX).strip("{}")


def _tag(job_id: str, tagged: bool) -> str:
    return f"{{{job_id}}}" if tagged else job_id
