"""Searches of people who do not write English, or write long memories, with the bundled embedding model."""
# ruff: noqa: RUF001 - letters of other scripts

import unicodedata
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from models.memory.memories import NewMemory
from models.memory.spaces import SpaceKey
from models.platform.ids import new_id
from models.platform.settings import Settings
from pipelines.inference.llamacpp.embedder import load_embedder
from pipelines.memory import reindex, store
from pipelines.memory.passages import reindex_job
from pipelines.memory.recall import Query, recall

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)

NOUNS = [
    "강아지", "고양이", "자동차", "비행기", "자전거", "기차역", "도서관", "운동장",
    "냉장고", "세탁기", "컴퓨터", "전화기", "우체국", "박물관", "놀이터",
]  # fmt: skip


@pytest.fixture(scope="module")
def embed():
    return load_embedder(Settings()).embed


@pytest.fixture
def user(database, account, embed):
    return User(database, account, embed)


class User:
    """A user who has memories and searches them."""

    def __init__(self, database, account_id, embed):
        self.database, self.account_id, self.user_id, self.embed = database, account_id, new_id("user"), embed
        with database.connection() as connection:
            connection.execute("INSERT INTO users (id, email) VALUES (%s, %s)", (self.user_id, self.user_id + "@a.de"))

    def remember(self, *texts, at=NOW - timedelta(days=100)):
        new = [NewMemory(new_id("mem"), text, "user", at) for text in texts]
        for start in range(0, len(new), store.BATCH):
            batch = new[start : start + store.BATCH]
            store.write_memories(self.database, self.embed, SpaceKey(self.account_id, self.user_id), batch)
        return [each.id for each in new]

    def search(self, query, limit=12):
        return recall(self.database, self.embed, SpaceKey(self.account_id, self.user_id), Query(query, limit), NOW)

    def first(self, query):
        return self.search(query)[0].memory.text

    def embed_passages(self, begin, settle):
        statement = "SELECT id FROM jobs WHERE account_id = %s AND kind = 'memory.reindex'"
        with self.database.connection() as connection:
            (job,) = connection.execute(statement, (self.account_id,)).fetchall()
        attempt = begin(replace(reindex_job(SpaceKey(self.account_id, self.user_id)), id=job["id"]))
        ending = reindex.run(self.embed, attempt)
        settle(attempt, ending)
        return ending.result["indexed"]


@pytest.mark.parametrize(("stored", "asked"), [("NFC", "NFC"), ("NFC", "NFD"), ("NFD", "NFC")])
def test_korean_noun_is_found_in_any_unicode_form(user, stored, asked):
    user.remember(*(unicodedata.normalize(stored, f"어제 {noun}를 보았다") for noun in NOUNS))
    for noun in NOUNS:
        assert noun in unicodedata.normalize("NFC", user.first(unicodedata.normalize(asked, noun)))


def test_compatible_characters_are_found(user):
    user.remember("ﾋﾟｱﾉ", "ＡＢＣ１２", "①番", "ギター", "ＸＹＺ３４", "②番", "バイオリン", "ＤＥＦ５６", "③番")
    assert [user.first(query) for query in ("ピアノ", "ABC12", "1番")] == ["ﾋﾟｱﾉ", "ＡＢＣ１２", "①番"]


def test_german_word_in_nfd_is_found_in_nfc(user):
    key = unicodedata.normalize("NFD", "Der Schlüssel für die Gartenhütte hängt in der Küche")
    user.remember(key, *(f"Am {number}. Tag war das Wetter in München schön" for number in range(9)))
    hit = user.search("Schlüssel")[0]
    assert hit.memory.text == key
    assert hit.parts["lexical"] > 0.4


def test_code_that_looks_like_a_year_is_found(user):
    codes = [*range(1900, 2100, 10), *range(4400, 4420)]
    user.remember(*(f"Locker {chr(65 + place % 26)}{place} has the code {code}" for place, code in enumerate(codes)))
    user.remember(*(f"Ann booked room {room}" for room in (1901, 1902, 2001, 3101)))
    user.remember("Part 1988-4471 is in the cellar", "Part 1987-4471 is in the attic")
    for code in codes:
        for query in (f"Whose locker has the code {code}?", f"Who has code {code}?", f"code {code}"):
            assert user.first(query).endswith(f"code {code}")
    assert user.first("Who booked room 1902?") == "Ann booked room 1902"
    assert user.first("Where is part 1988-4471?") == "Part 1988-4471 is in the cellar"


DEEDS = [
    "planted tulips", "baked bread", "fixed the bicycle", "painted the fence", "sold the piano", "visited Rome",
    "adopted a cat", "broke a cup", "ran a marathon", "joined a choir", "moved the sofa", "bought skis",
]  # fmt: skip

QUESTIONS = {
    "in March 2026": (2026, 3), "on 2026-03-14": (2026, 3), "on March 14, 2026": (2026, 3), "in March": (2026, 3),
    "on 14 March": (2026, 3), "in December": (2025, 12), "on 14.03.2026": (2026, 3), "on 3/14/2026": (2026, 3),
    "on 14/03/2026": (2026, 3), "in 03/2026": (2026, 3), "in 2026-03": (2026, 3), "im März 2026": (2026, 3),
    "en mars 2026": (2026, 3), "2026年3月": (2026, 3),
}  # fmt: skip


def test_memory_of_the_asked_time_is_first(user):
    days = [datetime(2026, month, 14, 12, tzinfo=UTC) for month in range(1, 12)]
    for deed, day in zip(DEEDS, [datetime(2025, 12, 14, 12, tzinfo=UTC), *days], strict=True):
        user.remember(f"I {deed}", at=day)
    user.remember("I cooked soup", at=NOW - timedelta(days=1))
    user.remember("I washed the car", at=NOW - timedelta(days=7))
    user.remember("I cleaned the windows", at=NOW - timedelta(days=30))
    for when, (year, month) in QUESTIONS.items():
        at = user.search(f"What did I do {when}?")[0].memory.occurred_at
        assert (at.year, at.month) == (year, month), when
    assert user.first("What did I do yesterday?") == "I cooked soup"
    assert user.first("What did I do last week?") == "I washed the car"
    assert user.first("What did I do a month ago?") == "I cleaned the windows"
    assert user.search("What did I do last month?")[0].memory.occurred_at.month == 10
    assert user.search("What did I do last summer?")[0].memory.occurred_at.month in (6, 7, 8)
    assert user.search("What did I do in the first quarter of 2026?")[0].memory.occurred_at.month in (1, 2, 3)
    assert user.search("What did I do in 2025?")[0].memory.occurred_at.year == 2025


FILLER = "The committee discussed the budget of the garden club and the plans for the summer fair. "

FACT = "My passport is hidden behind the blue mirror in the hallway. "

SHORT = [
    "My keys are in the kitchen drawer", "My visa documents are with the lawyer", "My sister lives in Oslo",
    "I take the bus to work", "The dentist is on Main Street", "My favourite colour is green",
    "I lost my umbrella on the train", "The cat sleeps on the sofa", "My bank card is in my wallet",
    "I booked a flight to Lisbon",
]  # fmt: skip


@pytest.mark.parametrize(
    ("position", "embedded"), [(1_000, False), (5_000, False), (15_000, False), (32_000, False), (15_000, True)]
)
def test_fact_inside_a_long_memory_is_found_and_quoted(user, begin, settle, position, embedded):
    before = FILLER * (position // len(FILLER))
    user.remember(*SHORT)
    (long,) = user.remember((before + FACT + FILLER * 400)[: 16_500 if embedded else 32_700])
    if embedded:
        assert user.embed_passages(begin, settle) > 10
    for query in ("passport", "Where is my passport?"):
        hit = user.search(query)[0]
        assert hit.memory.id == long
        start, length = hit.passage
        assert FACT.strip() in hit.memory.text[start : start + length]
