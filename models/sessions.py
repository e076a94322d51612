"""Sessions: logins of people, each with a family of refresh tokens."""

from models.database import Connection
from models.ids import new_id

#: Days after which somebody who never came back must log in again; each refresh begins them anew.
IDLE_DAYS = 30

INSERT = """
INSERT INTO sessions (id, user_id, user_agent, ip, expires_at)
VALUES (%(id)s, %(user_id)s, %(user_agent)s, %(ip)s, now() + make_interval(days => %(days)s))
"""


def create(connection: Connection, user_id: str, *, user_agent: str = "", ip: str = "") -> str:
    """A new session; returns its id."""
    session_id = new_id("sess")
    values = {"id": session_id, "user_id": user_id, "user_agent": user_agent, "ip": ip, "days": IDLE_DAYS}
    connection.execute(INSERT, values)
    return session_id
