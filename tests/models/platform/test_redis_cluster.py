"""Redis Cluster and Sentinel: clients, journals, cancellations and rate limits on them."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
import redis

from bench.harness.waiting import wait_until
from models.access.rate_limits import Bucket, bucket_owners, correction_command, draw, token_draw_arguments
from models.journal import journal, shards
from models.journal.events import event
from models.journal.journal import Claim
from models.journal.shards import shard_keys
from models.journal.writer import Journal, JournalWriter
from models.platform.ids import new_id
from models.platform.redis_client import connect, connect_async, is_cluster
from models.platform.redis_cluster import Command, execute_all
from models.platform.redis_exchange import exchange
from models.platform.redis_url import parse_redis_url
from tests.redis_servers import running_cluster, running_sentinel


@pytest.fixture(scope="module")
def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as url:
        yield url


@pytest.fixture
def cluster(cluster_url: str) -> Iterator[redis.Redis]:
    with connect(cluster_url) as client:
        yield client


@pytest.mark.parametrize(
    ("url", "kind", "hosts", "options", "service"),
    [
        ("redis+cluster://one:7000,two", "cluster", [("one", 7000), ("two", 6379)], {}, ""),
        ("redis+cluster://me:a%2Fb@one", "cluster", [("one", 6379)], {"username": "me", "password": "a/b"}, ""),
        ("rediss+cluster://[::1]:7000?ssl_cert_reqs=none", "cluster", [("::1", 7000)],
         {"ssl": True, "ssl_cert_reqs": "none"}, ""),
        ("redis+sentinel://one,two:1/chat/3", "sentinel", [("one", 26379), ("two", 1)], {"db": 3}, "chat"),
    ],
)  # fmt: skip
def test_urls_of_clusters_and_sentinels_are_parsed(url, kind, hosts, options, service):
    parsed = parse_redis_url(url)

    assert (parsed.kind, parsed.hosts, parsed.options, parsed.service) == (kind, hosts, options, service)


@pytest.mark.parametrize("url", ["redis+sentinel://one", "redis+cluster://", "redis+cluster://one:port"])
def test_malformed_urls_are_rejected(url):
    with pytest.raises(ValueError, match=r"should|[Pp]ort"):
        parse_redis_url(url)


def test_a_client_of_a_cluster_connects_on_first_use():
    with connect("redis+cluster://127.0.0.1:1") as client:
        assert is_cluster(client)
        assert is_cluster(connect_async("redis+cluster://127.0.0.1:1", timeout=1))
        with pytest.raises(redis.ConnectionError):
            client.ping()
        with pytest.raises(redis.ConnectionError):
            execute_all(client, [Command("key", ["GET", "key"])])


def test_commands_on_all_nodes_are_executed_together(cluster):
    # Given keys of many slots
    keys = [f"key {number}" for number in range(50)]
    # When they are written and read together
    execute_all(cluster, [Command(key, ["SET", key, number]) for number, key in enumerate(keys)])
    replies = execute_all(cluster, [*(Command(key, ["GET", key]) for key in keys), Command("x", ["GET", "x", "y"])])
    # Then the replies are in the order of the commands, with errors among them
    assert replies[:-1] == [str(number).encode() for number in range(50)]
    assert isinstance(replies[-1], redis.ResponseError)
    assert len({cluster.get_node_from_key(key).port for key in keys}) == 3


def test_a_command_whose_slot_has_moved_is_redirected(cluster):
    # Given a client that takes another node for the owner of a key
    key = "a key that moves"
    owner = cluster.get_node_from_key(key)
    other = next(node for node in cluster.get_primaries() if node.name != owner.name)
    slots = cluster.connected().nodes_manager.slots_cache
    slot = cluster.keyslot(key)
    slots[slot] = [other]
    # When it executes a command
    replies = execute_all(cluster, [Command(key, ["SET", key, 1]), Command(key, ["GET", key])])
    # Then the owner executes it
    assert replies == [b"OK", b"1"] or replies == [True, b"1"]


def test_journals_are_written_announced_and_read_on_a_cluster(cluster):
    # Given journals of many jobs, so that their keys and shards are on all nodes
    shards_before = {key: cluster.xlen(key) for key in shard_keys()}
    writer = JournalWriter(cluster, lambda *claim: True)
    journals = []
    for _ in range(20):
        claim = Claim(new_id("job"), 1, uuid4())
        journal.append(cluster, Claim(claim.job_id), [event(0, "test.opened", {})])
        taken = journal.append(cluster, claim, [])
        assert (taken.status, taken.last, taken.fence) == ("ok", 0, 0)
        journals.append(Journal(claim, 1, writer))
    # When their attempts write
    for number in range(30):
        for written in journals:
            written.write("test.said", {"n": number})
    for written in journals:
        written.append_endings(written.compose_endings([("sangha:job.completed", {})]))
    assert writer.drain()
    writer.stop()
    # Then all events are there, and announced
    for written in journals:
        events = journal.read_events(cluster, written.claim.job_id)
        assert [event.sequence for event in events] == list(range(32))
        assert journal.last_sequence(cluster, written.claim.job_id) == 31
        journal.delete(cluster, written.claim.job_id)
        assert journal.read_events(cluster, written.claim.job_id) == []
    assert any(cluster.xlen(key) > before for key, before in shards_before.items())


def test_an_evicted_journal_is_repaired_on_a_cluster(cluster):
    writer = JournalWriter(cluster, lambda *claim: True)
    claim = Claim(new_id("job"), 1, uuid4())
    journal.append(cluster, claim, [])
    written = Journal(claim, 0, writer)
    for number in range(10):
        written.write("test.said", {"n": number})
        if number == 5:
            assert writer.drain()
            journal.delete(cluster, claim.job_id)

    assert writer.drain()

    assert [event.sequence for event in journal.read_events(cluster, claim.job_id)] == list(range(10))
    writer.stop()


def test_cancellations_reach_a_listener_on_any_node(cluster, cluster_url):
    with connect(cluster_url) as other, other.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(journal.CANCEL_CHANNEL)
        wait_until(lambda: channel.get_message(timeout=0.01) is None and channel.subscribed)
        for number in range(5):
            journal.publish_cancellations(cluster, [f"job {number}"])
        received: list[bytes] = []

        def all_received():
            message = channel.get_message(timeout=0.1)
            received.extend([message["data"]] if message else [])
            return len(received) == 5

        wait_until(all_received)
        assert received == [f"job {number}".encode() for number in range(5)]


def test_the_buckets_of_an_account_and_its_keys_are_drawn_together_on_a_cluster(cluster):
    # Given buckets of an account and of its API key
    account, key = new_id("acct"), new_id("key")

    def buckets(cost):
        return [Bucket(owner, "tokens", 100, cost, group=account) for owner in bucket_owners(account, key)]

    # When a request draws from them, and the worker corrects the estimate
    assert draw(cluster, buckets(10)).refused is None
    command = correction_command(account, token_draw_arguments(key, 100, 10), 60)
    assert execute_all(cluster, [command])[0][0] == 0
    # Then both have what is left
    assert [40 <= level.remaining <= 50 for level in draw(cluster, buckets(0)).levels] == [True, True]


def test_clients_follow_the_failover_of_a_sentinel(tmp_path):
    with running_sentinel(tmp_path) as (url, primary), connect(url) as client:
        # Given a journal on the primary, and its copy on the replica
        writer = JournalWriter(client, lambda *claim: True)
        claim = Claim(new_id("job"), 1, uuid4())
        journal.append(client, claim, [])
        written = Journal(claim, 0, writer)
        written.write("test.said", {"n": 0})
        assert writer.drain()
        client.wait(1, 2000)
        # When the primary is killed while the attempt writes
        primary.kill()
        for number in range(1, 5):
            written.write("test.said", {"n": number})
        # Then the events are on the promoted replica
        assert writer.drain(30)
        assert [event.sequence for event in journal.read_events(client, claim.job_id)] == list(range(5))
        writer.stop()


def test_announcements_are_trimmed_and_deleted_on_all_nodes(cluster):
    # Given announcements in all shards
    job_ids = {shards.shard_key(job_id): job_id for job_id in (new_id("job") for _ in range(200))}
    for job_id in job_ids.values():
        cluster.execute_command(*shards.announcement(job_id, [event(0, "a.delta", {"delta": "words"})]))

    # When those of one job are deleted, and then all old ones
    first, *others = job_ids.values()
    deleted = shards.delete_entries(cluster, [first])
    shards.trim(cluster, kept=0)

    # Then no words are left on any node
    assert (len(others), deleted) == (shards.SHARDS - 1, 1)
    for key in job_ids:
        assert [fields[b"e"] for _, fields in cluster.xrange(key)] == [b""]


@pytest.mark.parametrize(
    "send", [lambda client: client.echo("next"), lambda client: exchange(client, [["ECHO", "next"]])[0]]
)
def test_a_late_reply_is_not_taken_for_that_of_the_next_command(tmp_path, send):
    # Given a command to the primary of Sentinels whose reply is late
    with running_sentinel(tmp_path) as (url, _), connect(url, timeout=0.2) as client:
        with pytest.raises(redis.TimeoutError):
            client.blpop("an empty list", 1)
        # When another command is sent before that reply arrives, then it gets its own
        assert send(client) == b"next"
