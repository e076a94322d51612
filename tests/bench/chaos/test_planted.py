"""Given planted bugs, when the source changes, then a bug whose text is no longer found fails here."""

import ast

import pytest

from bench.chaos.planted import PLANTED, Edit, PlantedBug, apply_edit, planted_copy
from bench.chaos.run import RunOptions
from bench.machine import ROOT


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.name)
def test_the_texts_of_a_bug_occur_once_and_its_faults_exist(bug: PlantedBug):
    for edit in bug.edits:
        whole = apply_edit(edit, (ROOT / edit.file).read_text())
        assert ast.parse(whole)

    assert RunOptions(bug.seed, bug.minutes, bug.broker, bug.only, spills=bug.spills).faults()


def test_a_text_that_does_not_occur_once_is_rejected():
    for text in ("", "a b a"):
        with pytest.raises(ValueError, match="times: a"):
            apply_edit(Edit("a file", "a", "c"), text)


def test_a_bug_is_planted_in_a_copy_only():
    bug = PLANTED[0]
    before = (ROOT / bug.edits[0].file).read_text()

    with planted_copy(bug) as folder:
        assert (folder / bug.edits[0].file).read_text() == apply_edit(bug.edits[0], before)

    assert (ROOT / bug.edits[0].file).read_text() == before
    assert not folder.exists()
