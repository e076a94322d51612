"""The victim of the hostile account: an account whose data contain a secret, and which must keep them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from bench.harness.client import PASSWORD, Address, Client
from bench.harness.sse import CheckFailed
from bench.harness.stack import WITHOUT_MEMORY
from models.platform.ids import new_id

#: The scopes of the keys of victim and adversary: all that an owner may give.
SCOPES = ("read", "write", "inference", "admin")


@dataclass(frozen=True, slots=True)
class Victim:
    """What the adversary knows of its victim.

    secret   a text that all of the victim's data contain
    account  the account's id
    ids      ids by kind: `response`, `conversation`, `memory`, `job`, `schedule`, `api_key`
    token    of the victim, with which only the check at the end reads
    """

    secret: str
    email: str
    account: str
    ids: Mapping[str, str]
    token: str = field(repr=False)

    def paths(self) -> Mapping[str, str]:
        """Return the paths of the victim's objects, by kind."""
        names = {
            "response": "responses", "conversation": "conversations", "memory": "memories",
            "schedule": "schedules", "api_key": "api_keys", "job": "jobs",
        }  # fmt: skip
        return {kind: f"/v1/{name}/{self.ids[kind]}" for kind, name in names.items()}


def create_victim(address: Address) -> Victim:
    """Sign up, and create an object of each kind. Call it while no fault is active."""
    secret = new_id("secret")
    email = f"{new_id('victim')}@example.com"
    key = sign_up(address, email, secret)
    with closing(Client(address, key["key"])) as owner:
        account = str(owner.get("/v1/account")["id"])
        return Victim(secret, email, account, {**_create_objects(owner, secret), "api_key": key["id"]}, key["key"])


def sign_up(address: Address, email: str, name: str) -> Mapping[str, str]:
    """Create an account; returns the `id` and the `key` of an API key with all scopes, which does not expire."""
    with closing(Client(address)) as client:
        token = client.post("/signup", {"email": email, "password": PASSWORD})["token"]
    with closing(Client(address, token)) as user:
        grant = {"name": name, "scopes": SCOPES}
        try:
            return user.post("/v1/api_keys", {**grant, "memory": "owner"})
        except CheckFailed:  # the previous version knows no `memory`
            return user.post("/v1/api_keys", grant)


def _create_objects(client: Client, secret: str) -> dict[str, str]:
    items = [{"role": "user", "content": f"My secret is {secret}."}]
    conversation = client.post("/v1/conversations", {"items": items, "metadata": {"secret": secret}})
    turn = {"input": secret, "metadata": {"secret": secret}, "conversation": conversation["id"], **WITHOUT_MEMORY}
    response = client.post("/v1/responses", {**turn, "background": True})
    memory = client.post("/v1/memories", {"text": f"The secret is {secret}."})
    work = {"kind": "turn", "request": {"input": secret}}
    schedule = client.post(
        "/v1/schedules",
        {"name": secret, "trigger": {"type": "interval", "seconds": 86400}, "work": work, "paused": True},
    )
    jobs = client.get("/v1/jobs?kind=turn.run")["data"]
    created = {"response": response, "conversation": conversation, "schedule": schedule, "job": jobs[0]}
    return {"memory": _memory_id(client, memory), **{kind: str(each["id"]) for kind, each in created.items()}}


def _memory_id(client: Client, created: Mapping[str, Any]) -> str:
    """Return the id of the created memory. Raises CheckFailed where it does not exist yet."""
    listed: Sequence[Mapping[str, Any]] = client.get("/v1/memories")["data"]
    if not listed:
        raise CheckFailed(f"the victim's memory was not created: {created}")
    return str(listed[0]["id"])


def losses(victim: Victim, address: Address) -> Iterator[str]:
    """Yield the kinds of the victim's objects that are gone or changed."""
    with closing(Client(address, victim.token)) as client:
        for kind, path in victim.paths().items():
            try:
                found = client.get(path)
            except CheckFailed as error:
                yield f"its {kind} cannot be read any more: {error}"
                continue
            if kind != "job" and victim.secret not in str(found):
                yield f"its {kind} is no longer what it was: {str(found)[:200]}"
