"""Delete turns and conversations, and the memories of them."""

from models.accounts.ownership import Access
from models.agents import approvals
from models.jobs.jobs import NewJob, enqueue
from models.memory import memories, spaces
from models.memory.spaces import SpaceKey
from models.platform.database import Connection, Database
from models.platform.errors import Conflict
from models.turns import conversations, response_deletion
from models.turns.responses import Response
from pipelines.memory.forget_memories import delete_memories


def delete_response(database: Database, response: Response) -> None:
    """Delete an ended turn, its journal and its memories; its chain goes on without it.

    Raises Conflict while it is in progress.
    """
    with database.transaction() as connection:
        _delete_memories(connection, response)
        response_deletion.close_gap(connection, response)
        approvals.delete_of_response(connection, response.id, response.account_id)
        if not response_deletion.delete(connection, response.id, response.account_id):
            raise Conflict("The response is still in progress; cancel it first.", code="response_in_progress")


def _delete_memories(connection: Connection, response: Response) -> None:
    """Delete the turn's memories. Must run first: a job that remembers the turn locks the space, then the turn."""
    key = SpaceKey.of_turn(response)
    space = spaces.find(connection, key) if key else None
    space = spaces.lock(connection, space.id) if space else None
    if space is not None and (ids := memories.ids_of_turn(connection, space.id, response.thread, response.id)):
        delete_memories(connection, space, ids)


def delete_conversation(database: Database, conversation_id: str, access: Access) -> bool:
    """Delete a conversation. Jobs delete the memories of it: announce them to the queue after this.

    Returns whether the caller had access to it. A turn that is not remembered yet will not be: its conversation is
    gone.
    """
    with database.transaction() as connection:
        if not conversations.delete(connection, conversation_id, access):
            return False
        for key in spaces.with_conversation(connection, access.account_id, conversation_id):
            arguments = {**key.arguments, "conversation_id": conversation_id}
            enqueue(connection, NewJob("memory.forget", key.account_id, arguments, owner_id=key.user_id))
    return True
