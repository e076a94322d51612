"""The clients of a fleet that run trees: an agent delegates to others, whose tools are in the harness.

Some calls need an approval, which the clients of the account decide, several of them at once; some trees are cancelled,
and some have few tokens.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from bench.chaos.clients import FleetClient
from bench.chaos.retrying_client import Deadline, HttpRequest, RetryingClient
from bench.chaos.stream_follower import OnEvent, stream_path
from bench.chaos.tool_server import EFFECTS, READ_ONLY, ToolServer
from bench.chaos.transcripts import ClientTranscript, TreeTranscript
from bench.chaos.tree_follower import TreeFollower
from bench.harness.stack import WITHOUT_MEMORY

#: The share of trees that are cancelled, that have few tokens, and whose merged stream is followed.
CANCELLED, POOR, MERGED = 0.15, 0.2, 0.5

#: The share of agents whose calls need an approval, and of approvals that are given.
ASKING, APPROVED = 0.3, 0.75

#: The tokens of a tree that has few, and of any other.
FEW_TOKENS, ENOUGH_TOKENS = (80, 400), 100_000

#: What an agent calls: once, two tools at once, one in two steps.
CALLS = (
    f"call shop__{EFFECTS[0]}",
    f"call shop__{EFFECTS[0]} call shop__{EFFECTS[1]}",
    f"call shop__{EFFECTS[1]} in 2 steps",
    f"call shop__{EFFECTS[0]} call shop__{READ_ONLY}",
)

#: Seconds between two looks for approvals, on average.
LOOK_INTERVAL = 0.7


class TreeClient(FleetClient):
    """Runs trees, once it has a server of tools."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._trees = TreeFollower(self.http, self.rng)
        self._tools: ToolServer | None = None

    def begin_trees(self, tools: ToolServer) -> None:
        """Let it run trees with these tools from now on."""
        self._tools = tools

    def work(self) -> None:
        if self._tools is None:  # the previous version may run, which has no agents
            return
        transcript = self._begin(self._tools)
        agents = self._create_agents(transcript, self._tools)
        with Decider(self, transcript):
            self._run(transcript)
        if transcript.id:
            transcript.final = self.read(transcript, f"/v1/responses/{transcript.id}")
            self._replay(transcript)
            transcript.ended = time.monotonic()
        self._delete_agents(transcript, agents)

    def _begin(self, tools: ToolServer) -> TreeTranscript:
        key = self.next_key()
        merged = self.rng.random() < MERGED
        request = {
            "model": f"agent/{_name(key, 'boss')}",
            "input": "go",
            "metadata": {"chaos": key},
            **WITHOUT_MEMORY,
            **({"background": True} if merged else {"stream": True}),
        }
        names = [_name(key, f"a{number}") for number in range(self.rng.randrange(1, 4))]
        transcript = TreeTranscript("tree", self.name, self.account, key, request, time.monotonic())
        transcript.tool_keys = {name: name for name in [*names, _name(key, "boss")]}
        self.transcripts.append(transcript)
        return transcript

    def _create_agents(self, transcript: TreeTranscript, tools: ToolServer) -> Sequence[str]:
        """Create the agents of a tree: those that use tools first, then the one that delegates. Returns their ids."""
        *workers, boss = transcript.tool_keys
        bodies = [self._worker(name, tools) for name in workers]
        asked = [f"call agents__{name}" for name in workers]
        few = self.rng.random() < POOR
        tokens = self.rng.randrange(*FEW_TOKENS) if few else ENOUGH_TOKENS
        own = " ".join([self.rng.choice(CALLS), *asked] if self.rng.random() < 0.3 else asked)
        bodies.append({
            "name": boss, "instructions": own, "agents": workers, "tools": [_tool(tools, boss)], "approval": "never",
            "limits": {"tokens": tokens},
        })  # fmt: skip
        created = [self._create_agent(transcript, body) for body in bodies]
        return [id_ for id_ in created if id_]

    def _worker(self, name: str, tools: ToolServer) -> Mapping[str, Any]:
        approval = "not_read_only" if self.rng.random() < ASKING else "never"
        instructions = self.rng.choice(CALLS)
        return {"name": name, "instructions": instructions, "tools": [_tool(tools, name)], "approval": approval}

    def _create_agent(self, transcript: TreeTranscript, body: Mapping[str, Any]) -> str:
        headers = {"Idempotency-Key": f"{transcript.key}-{body['name']}"}
        return str(self.http.send(transcript, HttpRequest("POST", "/v1/agents", body, headers)).json().get("id") or "")

    def _delete_agents(self, transcript: ClientTranscript, agents: Sequence[str]) -> None:
        for id_ in agents:
            for _ in self.http.tries():
                if self.http.send_once(HttpRequest("DELETE", f"/v1/agents/{id_}")).status in (200, 404):
                    break

    def _run(self, transcript: TreeTranscript) -> None:
        """Create the turn, and follow it or its whole tree to the end; perhaps cancel it in mid-run."""
        on_event = self._interruptions()
        if transcript.request.get("stream"):
            self.follower.create(transcript, on_event)
            return
        self.create(transcript, "/v1/responses")
        if transcript.id:
            self._trees.follow(transcript, f"{stream_path(transcript)}&tree=true", on_event)

    def _interruptions(self) -> OnEvent:
        """Disconnect after some numbers of events, and cancel after another one, which are chosen at the start."""
        disconnects = {self.rng.randrange(1, 60) for _ in range(self.rng.randrange(4))}
        cancel_at = self.rng.randrange(2, 60) if self.rng.random() < CANCELLED else -1

        def on_event(transcript: ClientTranscript) -> bool:
            received = transcript.tree_events if isinstance(transcript, TreeTranscript) else []
            count = max(len(received), len(transcript.events))
            if count == cancel_at and not transcript.cancels:
                self.cancel(transcript)
            return count in disconnects

        return on_event

    def _replay(self, transcript: TreeTranscript) -> None:
        """Read the stream of a root that was followed through its tree, or the reverse, from a random position."""
        after = self.rng.randrange(-1, max(transcript.last, 0))
        self.follower.replay(transcript, stream_path(transcript), after)


class Decider:
    """Decides the approvals of a client's account during a tree. Those of other clients decide the same ones."""

    def __init__(self, client: FleetClient, transcript: TreeTranscript) -> None:
        self._transcript = transcript
        self._stopped = threading.Event()
        self._rng = Random(f"{transcript.key} decisions")
        self._http = RetryingClient(client.http.addresses, client.http.token, self._rng, Deadline())
        self._thread = threading.Thread(target=self._run, name=f"{client.name}-decider", daemon=True)

    def __enter__(self) -> "Decider":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._rng.expovariate(1 / LOOK_INTERVAL)):
            reply = self._http.send_once(HttpRequest("GET", "/v1/approvals?status=pending&limit=100"))
            for approval in reply.json().get("data", ()) if reply.status == 200 else ():
                self._decide(approval["id"])

    def _decide(self, id_: str) -> None:
        """Decide once. Without an answer it is decided again if it is still pending at the next look."""
        approve = self._rng.random() < APPROVED
        body = {"approve": approve} if approve else {"approve": False, "text": "not now"}
        reply = self._http.send_once(HttpRequest("POST", f"/v1/approvals/{id_}", body))
        if reply.status != 409:  # another client was faster, or the turn has ended
            self._http.check_reply(self._transcript, f"POST /v1/approvals/{id_}", reply)


def _name(key: str, role: str) -> str:
    return f"t{key}-{role}"


def _tool(tools: ToolServer, key: str) -> Mapping[str, Any]:
    return {"type": "mcp", "server_label": "shop", "server_url": tools.address(key), "require_approval": "never"}
