"""Given several schedulers, then one leads; when its connection goes, however it goes, then another one does."""

import psycopg
import pytest

from scheduler.leader import LOCK, Leadership
from tests.waiting import eventually


@pytest.fixture
def contenders(own_database):
    two = [Leadership(own_database.dsn) for _ in range(2)]
    yield two
    for leadership in two:
        leadership.give_up()


def test_one_leads(contenders):
    one, other = contenders

    assert one.held()
    assert not other.held()
    assert one.held()
    one.give_up()
    assert eventually(other.held)
    assert not one.held()


def test_a_killed_connection_gives_the_lead_away(contenders, own_database):
    one, other = contenders
    assert one.held()
    with psycopg.connect(own_database.dsn, autocommit=True) as admin:
        killed = admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks JOIN pg_database ON pg_database.oid = database "
            "WHERE locktype = 'advisory' AND objid = %s AND datname = current_database()",
            (LOCK & 0xFFFFFFFF,),
        ).fetchall()
    assert killed == [(True,)]

    assert other.held()
    assert not one.held()  # it notices before it does anything that only a leader may
    assert not one.held()
    other.give_up()
    assert eventually(one.held)


def test_nobody_leads_without_a_database(tmp_path):
    assert not Leadership(f"postgresql://postgres@/sangha?host={tmp_path}").held()


def test_a_leader_that_lost_the_server_leads_again_when_it_is_back(contenders):
    one, _ = contenders
    assert one.held()
    one._connection.close()

    assert not one.held()
    assert eventually(one.held)
