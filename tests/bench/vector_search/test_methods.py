"""Each method finds the nearest vectors of a space, and leaves nothing behind."""

import pytest
from psycopg.rows import dict_row

from bench.vector_search.__main__ import connect
from bench.vector_search.data import VectorGenerator, load
from bench.vector_search.methods import METHODS, Exact
from models.memory import vector_codes
from models.memory.spaces import Space
from tests.databases import bare_database

SIZES = {1: 600, 2: 200}

RELATIONS = """
SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'i') ORDER BY 1
"""


@pytest.fixture(scope="module")
def connection(postgres):
    """A connection to a database with the vectors of two spaces."""
    with bare_database(postgres) as dsn, connect(dsn) as connection:
        connection.row_factory = dict_row
        connection.execute("CREATE EXTENSION vector")
        load(connection, VectorGenerator(), SIZES)
        yield connection


@pytest.mark.parametrize("method_type", METHODS, ids=lambda method_type: method_type.name)
def test_method_finds_the_nearest(connection, method_type, monkeypatch):
    monkeypatch.setattr(vector_codes, "EXACT_UP_TO", 100)
    relations, method = connection.execute(RELATIONS).fetchall(), method_type()
    query, new = VectorGenerator(9).vectors(2)

    method.build(connection, SIZES)
    found = method.search(connection, 1, query, 20)
    method.insert(connection, Space(1, "", "", next_ordinal=600, live=600), new.tolist())
    method.drop(connection)

    assert len({*found} & {*Exact().search(connection, 1, query, 20)}) >= 14
    assert connection.execute(RELATIONS).fetchall() == relations
    connection.execute("DELETE FROM memory_vectors WHERE ordinal = 600")
