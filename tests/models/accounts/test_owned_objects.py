"""The id of a database."""

from models.accounts.owned_objects import database_id
from models.platform.ids import new_id


def test_any_role_reads_the_id_which_stays(database):
    with database.connection() as connection:
        expected = database_id(connection)
    role = new_id("role")
    with database.transaction() as connection:
        connection.execute(f"CREATE ROLE {role}")
        connection.execute(f"SET LOCAL ROLE {role}")
        assert database_id(connection) == expected
        connection.execute("RESET ROLE")
        connection.execute(f"DROP ROLE {role}")
