"""Embeddings begin: texts as a job."""

from collections.abc import Sequence

from models.accounts import Caller
from models.database import Database
from models.embeddings import KIND
from models.jobs import NewJob, enqueue


def start(database: Database, caller: Caller, texts: Sequence[str], job_id: str) -> None:
    """Accept texts to embed. Tell the queue afterwards."""
    with database.transaction() as connection:
        enqueue(connection, NewJob(KIND, caller.account_id, {"texts": list(texts)}, id=job_id))
