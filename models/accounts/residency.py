"""Whether the turns of an account may leave the operator's network."""

from typing import Literal

from models.platform.database import Connection, fetch_one

#: `local`: turns never leave the network; `any`: they may.
Residency = Literal["local", "any"]

READ = "SELECT account_residency FROM accounts WHERE id = %(id)s"
SET = "UPDATE accounts SET account_residency = %(residency)s WHERE id = %(id)s"


def read_residency(connection: Connection, account_id: str) -> Residency | None:
    """Return the residency of an account as it is now; None: as the settings say."""
    row = fetch_one(connection, READ, {"id": account_id})
    residency: Residency | None = row["account_residency"] if row else "local"
    return residency


def set_residency(connection: Connection, account_id: str, residency: Residency | None) -> None:
    """Change the residency of an account; None: as the settings say."""
    connection.execute(SET, {"id": account_id, "residency": residency})


def strictest(*residencies: str | None) -> Residency | None:
    """Return `local` if one of them is; None if none says anything."""
    if "local" in residencies:
        return "local"
    return "any" if "any" in residencies else None
