"""Delete a file."""

from models.accounts import files
from models.accounts.files import File
from models.platform.database import Database
from models.platform.object_store import ObjectStore


def delete_file(database: Database, objects: ObjectStore, file: File) -> None:
    """Let a file expire, then delete its objects and its rows. What a crash leaves, the sweeper deletes.

    Raises Unavailable: before the file has expired if the database is, afterwards if the object store is.
    """
    with database.connection() as connection:
        files.expire(connection, file.id, file.account_id)
    objects.delete(stored.key for stored in file.objects)
    with database.transaction() as connection:
        files.delete(connection, file.id, file.account_id)
