"""What the indexes need of memories' texts, found before the space is locked.

It takes half a second of CPU for a long text of rare words. A transaction that lasts so long for each of a batch holds
back all other changes of the space, and Postgres ends it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipelines.memory import terms
from pipelines.memory.passages import PassageEntry, passage_entries


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """The weighted terms of a text, whether it is a question, and its passages."""

    weights: Mapping[str, float]
    asks: bool
    passages: Sequence[PassageEntry]


class IndexEntries:
    """The entries of texts, in one version of the terms. Those of texts that it does not know are found when needed."""

    def __init__(self, version: int, texts: Iterable[str] = ()) -> None:
        self.version = version
        self._by_text = {text: _entry(text, version) for text in dict.fromkeys(texts)}

    def __getitem__(self, text: str) -> IndexEntry:
        return self._by_text.get(text) or _entry(text, self.version)

    def in_version(self, version: int) -> "IndexEntries":
        """Return these entries, or none in another version."""
        return self if self.version == version else IndexEntries(version)


def _entry(text: str, version: int) -> IndexEntry:
    passages = passage_entries(text) if version >= terms.CURRENT else ()
    return IndexEntry(terms.term_weights(text, version), terms.is_question(text), passages)


NO_ENTRIES = IndexEntries(terms.CURRENT)
