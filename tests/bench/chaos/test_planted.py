"""Given the bugs that chaos is shown to catch, when the code changes, then they can still be planted."""

import ast

import pytest

from bench.chaos.planted import PLANTED, Edit, Planted, copied, edited
from bench.chaos.run import Wanted
from bench.machine import ROOT


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_its_texts_stand_where_they_did_and_its_faults_exist(planted: Planted):
    for edit in planted.edits:
        whole = edited(edit, (ROOT / edit.file).read_text())
        assert ast.parse(whole)

    assert Wanted(planted.seed, planted.minutes, planted.broker, planted.only).faults()


def test_a_text_that_does_not_stand_there_once_is_refused():
    for text in ("", "a b a"):
        with pytest.raises(ValueError, match="times: a"):
            edited(Edit("a file", "a", "c"), text)


def test_it_is_planted_in_a_copy():
    planted = PLANTED[0]
    before = (ROOT / planted.edits[0].file).read_text()

    with copied(planted) as folder:
        assert (folder / planted.edits[0].file).read_text() == edited(planted.edits[0], before)

    assert (ROOT / planted.edits[0].file).read_text() == before
    assert not folder.exists()
