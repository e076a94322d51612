"""The tree of jobs below a job."""

from models.jobs.children import wait_for_children
from models.jobs.jobs import NewJob
from models.jobs.trees import members
from models.platform.ids import new_id


def test_members_are_the_jobs_of_a_tree_that_exist(job_store, account):
    # Given a job with a child, and another job
    root, other = job_store.claim(job_store.enqueue(account)), job_store.enqueue(account)
    child = NewJob("turn.run", account)
    with job_store.database.transaction() as connection:
        wait_for_children(connection, root, [child])

    # When
    with job_store.database.connection() as connection:
        known = members(connection, [root.id, child.id, other, new_id("job")], root)

    # Then
    assert known == {root.id: True, child.id: True, other: False}
