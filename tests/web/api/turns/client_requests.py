"""Requests of clients that disconnect, and the turns that they start."""

import httpx
import pytest

from models.turns import abandoned_turns
from web.access.retries import RETRY_COUNT

CHAT = ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hello"}]})

UNSTORED = ("/v1/responses", {"input": "hello", "store": False})

STORED = ("/v1/responses", {"input": "hello"})

RETRY = {RETRY_COUNT: "1"}


class ClientRequest:
    """A request whose client disconnects when `disconnect` is called."""

    def __init__(self, user, path, body, headers=None, *, stream=False):
        self.answer = httpx.Response(0)
        self._client = httpx.Client(base_url=user.client.base_url, timeout=httpx.Timeout(20, read=0.5))
        sent = {"authorization": f"Bearer {user.token}", **(headers or {})}
        if stream:
            request = self._client.build_request("POST", path, json={**body, "stream": True}, headers=sent)
            self.answer = self._client.send(request, stream=True)
            assert self.answer.status_code == 200
            self._lines = self.answer.iter_lines()  # a dropped iterator would close the connection
            next(self._lines)
        else:
            with pytest.raises(httpx.ReadTimeout):  # the client gives up
                self._client.post(path, json=body, headers=sent)

    def disconnect(self):
        self.answer.close()
        self._client.close()


def turns_of(user):
    return [job for job in user.jobs() if job["kind"] == "turn.run"]


def abandoned(database):
    with database.connection() as connection:
        return set(abandoned_turns.list_abandoned(connection))


def state(user, job_id):
    return user.request("GET", f"/v1/jobs/{job_id}").json()["state"]
