"""The attacks of a hostile account, each a function that is called again and again.

Each is moderate: together they cost the machine less than the fleet does, as long as the platform refuses or limits
what it has to. What costs an attacker little must cost the platform little.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.chaos import probing
from bench.chaos.hostile_account import HostileAccount
from bench.harness.client import PASSWORD
from bench.harness.stack import WITHOUT_MEMORY

#: A large text below the limit of a body, and one that is sent in chunks.
LARGE, CHUNKED = 1_900_000, 300_000

#: Turns that are queued at once.
QUEUED = 30

#: Seconds for which connections stay open without being used.
HELD = 4.0

#: Multiples: a grammar of one has about as many states, a product of several their least common multiple.
MULTIPLES = (1_000_003, 700_001, 99_999_989, 50_021)


@dataclass(frozen=True, slots=True)
class Attack:
    """An attack, and the seconds between two of it."""

    description: str
    interval: float
    run: Callable[[HostileAccount], None]


def costly_schemas(account: HostileAccount) -> None:
    """Send schemas whose grammars take minutes to compile: one, and many in one body."""
    numbers = [account.rng.choice(MULTIPLES) + 2 * account.rng.randrange(1000) for _ in range(24)]
    properties = {f"p{number}": {"type": "integer", "multipleOf": number} for number in numbers}
    schemas: list[Mapping[str, Any]] = [
        {"type": "integer", "multipleOf": numbers[0]},
        {"type": "object", "properties": properties},
    ]
    account.at_once(4, lambda number: account.send("POST", "/v1/responses", with_schema(schemas[number % 2])))
    account.send("POST", "/v1/responses/input_tokens", {"input": "x", "tools": [tool(schemas[1])]})


def huge_patterns(account: HostileAccount) -> None:
    """Send schemas with regular expressions and lists that expand to millions of states."""
    number = account.rng.randrange(10_000)
    schemas: list[Mapping[str, Any]] = [
        {"type": "string", "pattern": f"^((a{{1,1000}}){{1,1000}}){{1,{1000 + number}}}$"},
        {"type": "string", "pattern": f"^{'(a|b)?' * 400}{number}$"},
        {"type": "string", "maxLength": 10_000_000 + number},
        {"type": "array", "items": {"type": "array", "items": {"enum": [*range(5000)]}, "maxItems": 1000 + number}},
    ]
    account.at_once(4, lambda index: account.send("POST", "/v1/responses", with_schema(schemas[index])))


def rare_crons(account: HostileAccount) -> None:
    """Create schedules that never fire, or once in decades."""
    expressions = ("1 0 31 2,4,6,9,11 *", "0 0 30 2 *", "0 0 29 2 1", "59 23 31 11 *")
    work = {"kind": "turn", "request": {"input": "x"}}

    def create(number: int) -> None:
        expression = expressions[number % len(expressions)]
        trigger = {"type": "cron", "expression": expression, "time_zone": "America/St_Johns"}
        created = account.send("POST", "/v1/schedules", {"name": f"rare {number}", "trigger": trigger, "work": work})
        if created.status == 201:
            account.send("DELETE", f"/v1/schedules/{created.json()['id']}")

    account.at_once(40, create)


def unread_streams(account: HostileAccount) -> None:
    """Open many streams of a large turn, and read nothing."""
    created = account.send("POST", "/v1/responses", turn(instructions="i" * LARGE))
    identifier = created.json().get("id", "resp_unknown")
    head = account.head("GET", f"/v1/responses/{identifier}?stream=true") + b"\r\n"
    with account.open_sockets(40, head, receive_buffer=4096):
        account.wait(HELD)


def idle_sockets(account: HostileAccount) -> None:
    """Open connections that send nothing, half a head, or half a body."""
    body = account.head("POST", "/v1/responses", "Content-Length: 100000\r\n") + b'\r\n{"input": "'
    halves = (b"", account.head("GET", "/v1/me"), body)
    with (
        account.open_sockets(100, halves[0]),
        account.open_sockets(100, halves[1]),
        account.open_sockets(50, halves[2]),
    ):
        account.wait(HELD)


def wordy_memories(account: HostileAccount) -> None:
    """Create memories of many different words, and delete them all at once."""
    texts = [" ".join(f"w{account.rng.randrange(10**6)}" for _ in range(3000)) for _ in range(8)]
    account.send("POST", "/v1/memories", {"memories": [{"text": text} for text in texts]})
    listed = account.send("GET", "/v1/memories?limit=64").json().get("data", [])
    account.at_once(64, lambda number: account.send("DELETE", memory_path(listed, number)))


def bad_imports(account: HostileAccount) -> None:
    """Import files of lines without a memory, and cancel half of the imports."""
    for number in range(2):
        created = account.send("POST", "/v1/memories/import", b"{}\n" * 2_000_000, {"Content-Type": "text/plain"})
        if number and created.status == 202:
            account.send("POST", f"/v1/jobs/{created.json()['id']}/cancel")


def repeated_exports(account: HostileAccount) -> None:
    """Request exports in a row."""
    account.at_once(10, lambda number: account.send("POST", "/v1/account/export", {}))


def password_guesses(account: HostileAccount) -> None:
    """Guess the victim's password, and log in as somebody else in between."""
    email = account.victim.email
    guesses = [("/login", email, f"guess {number}") for number in range(9)]
    own = [("/signup", email, "a password of the attacker"), ("/login", email, "a password of the attacker")]
    for path, address, password in own + guesses:
        account.send("POST", path, {"email": address, "password": password})


def forgotten_passwords(account: HostileAccount) -> None:
    """Request e-mails for the victim and for unknown addresses."""
    addresses = [account.victim.email, f"nobody-{account.rng.randrange(10**9)}@example.com"]
    account.at_once(30, lambda number: account.send("POST", "/auth/password/forgot", {"email": addresses[number % 2]}))


def chunked_bodies(account: HostileAccount) -> None:
    """Send large prompts without a Content-Length, which limits of tokens need."""

    def body() -> Iterator[bytes]:
        yield b'{"background": true, "memory": {"recall": false, "remember": false}, "input": "'
        for _ in range(CHUNKED // 10_000):
            yield b"word " * 2_000
        yield b'"}'

    account.at_once(10, lambda number: account.send("POST", "/v1/responses", body()))


def large_blanks(account: HostileAccount) -> None:
    """Send bodies of blanks, of nested arrays, and of many small values."""
    bodies = (b" " * LARGE, b"[" * LARGE, b"[{}," * (LARGE // 4), b'{"input": "x"' + b" " * LARGE + b"}")
    paths = ("/v1/responses", "/v1/memories", "/v1/embeddings", "/v1/responses/input_tokens", "/login")
    account.at_once(20, lambda number: account.send("POST", paths[number % 5], bodies[number % 4]))


def queued_turns(account: HostileAccount) -> None:
    """Queue turns, and cancel half of them."""
    created = [None] * QUEUED

    def create(number: int) -> None:
        identifier = account.send("POST", "/v1/responses", turn()).json().get("id")
        if identifier and number % 2:
            account.send("POST", f"/v1/responses/{identifier}/cancel")

    account.at_once(len(created), create)


def queued_embeddings(account: HostileAccount) -> None:
    """Request many vectors, and disconnect before they are made."""
    texts = [f"{number}: what is to be embedded " * 20 for number in range(64)]
    account.at_once(16, lambda number: account.send("POST", "/v1/embeddings", {"input": texts}, timeout=1.0))


def dropped_streams(account: HostileAccount) -> None:
    """Start streamed turns, and disconnect at once."""
    body = b'{"input": "x", "stream": true, "memory": {"recall": false, "remember": false}}'
    head = account.head("POST", "/v1/responses", f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n")
    with account.open_sockets(QUEUED, head + b"\r\n" + body):
        pass


def many_accounts(account: HostileAccount) -> None:
    """Sign up again and again."""
    prefix = account.rng.randrange(10**12)

    def create(number: int) -> None:
        account.send("POST", "/signup", {"email": f"sock-{prefix}-{number}@example.com", "password": PASSWORD})

    account.at_once(6, create)


def public_pages(account: HostileAccount) -> None:
    """Read what needs no credentials."""
    paths = ("/openapi.json", "/.well-known/jwks.json", "/readyz", "/metrics", "/docs", "/healthz", "/unknown")
    account.at_once(70, lambda number: account.send("GET", paths[number % len(paths)], headers={"Authorization": ""}))


def turn(**options: Any) -> dict[str, Any]:
    """Return the body of a background turn."""
    return {"input": "x", "background": True, "max_output_tokens": 8, **WITHOUT_MEMORY, **options}


def with_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a turn whose answer is constrained."""
    return turn(text={"format": {"type": "json_schema", "name": "a", "schema": schema}})


def tool(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool whose arguments are constrained."""
    return {"type": "function", "name": "f", "parameters": schema}


def memory_path(listed: list[Mapping[str, Any]], number: int) -> str:
    """Return the path of one of the listed memories; several requests name the same one."""
    return f"/v1/memories/{listed[number % len(listed)]['id'] if listed else 'mem_unknown'}"


ATTACKS: Mapping[str, Attack] = {
    "costly-schemas": Attack("schemas with large multipleOf, alone and many in a body", 5, costly_schemas),
    "huge-patterns": Attack("schemas with nested repetitions and long lists", 5, huge_patterns),
    "rare-crons": Attack("forty schedules at once that never fire", 10, rare_crons),
    "unread-streams": Attack("forty streams of a large turn that nobody reads", 10, unread_streams),
    "idle-sockets": Attack("250 connections without a request, or with half of one", 5, idle_sockets),
    "wordy-memories": Attack("64 deletions at once of memories with thousands of words", 20, wordy_memories),
    "bad-imports": Attack("imports of two million lines without a memory, and cancels", 20, bad_imports),
    "repeated-exports": Attack("ten exports in a row", 10, repeated_exports),
    "password-guesses": Attack("guesses of the victim's password between logins of its own", 10, password_guesses),
    "forgotten-passwords": Attack("thirty e-mails for forgotten passwords", 10, forgotten_passwords),
    "chunked-bodies": Attack("large prompts in chunks, without a Content-Length", 5, chunked_bodies),
    "large-blanks": Attack("bodies of 1.9 MB of blanks, brackets and empty objects", 5, large_blanks),
    "queued-turns": Attack("thirty queued turns at once, half of them cancelled", 5, queued_turns),
    "queued-embeddings": Attack("a thousand vectors, without waiting for them", 10, queued_embeddings),
    "dropped-streams": Attack("thirty streamed turns whose client disconnects at once", 5, dropped_streams),
    "many-accounts": Attack("sign-ups in a row", 10, many_accounts),
    "public-pages": Attack("seventy reads of public pages at once", 5, public_pages),
    "foreign-ids": Attack("every route with the ids of another account", 5, probing.foreign_ids),
    "forged-tokens": Attack("tokens and keys that are forged, cut or of another kind", 5, probing.forged_tokens),
    "malformed-requests": Attack("bodies, heads and parameters that are malformed", 5, probing.malformed_requests),
}
