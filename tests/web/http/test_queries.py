"""Parsing of queries: conversion, lists and errors."""

import pytest
from pydantic import Field
from starlette.datastructures import QueryParams

from models.platform.errors import InvalidRequest
from web.http.queries import RequestQuery, parse_query


class Page(RequestQuery):
    limit: int = Field(20, ge=1, le=100)
    include: list[str] = Field(default_factory=list)


def test_numbers_in_a_query_are_converted():
    assert parse_query(QueryParams("limit=5"), Page).limit == 5


@pytest.mark.parametrize("query", ["include[]=a", "include=a&include=b", "include[]=a&include[]=b"])
def test_a_query_may_contain_lists(query):
    assert parse_query(QueryParams(query), Page).include[0] == "a"


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=1&limit=2", "nothing=1"])
def test_an_invalid_query_is_rejected(query):
    with pytest.raises(InvalidRequest) as error:
        parse_query(QueryParams(query), Page)

    assert error.value.param in ("limit", "nothing")
