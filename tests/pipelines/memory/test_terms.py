"""Terms are stems weighed by BM25; a query's terms exclude the speakers and dates that it names."""

# ruff: noqa: RUF001 - letters of other scripts

import unicodedata
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from pipelines.memory import terms
from pipelines.memory.stemmers import stem


def test_terms_are_stems_without_stop_words() -> None:
    assert terms.extract_terms("She's been PAINTING the neighbours\u2019 fences, hasn't she?") == [
        "paint",
        "neighbour",
        "fenc",
    ]
    assert terms.extract_terms("What did Ann's painter paint?") == ["ann", "painter", "paint"]
    assert terms.term_weights("what did you do there?") == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("護照 2024", ["護", "照", "護照", "2024"]),
        ("猫が好き", ["猫", "好"]),
        ("りんご", ["りん", "んご"]),
        ("ﾋﾟｱﾉ", ["ピア", "アノ"]),
        ("강아지를", ["강", "아", "지", "를", "강아", "아지", "지를"]),
        ("กุญแจ", ["กุญ", "ญแ", "แจ"]),
        ("我的护照", ["护", "照", "护照"]),
    ],
)
def test_script_without_spaces_has_terms_of_neighbouring_characters(text: str, expected: list[str]) -> None:
    assert terms.extract_terms(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "어제 강아지를 보았다",
        "Der Schlüssel für die Gartenhütte hängt in der Küche",
        "İstanbul'da bir ev aldık",
        "Où est la clé de l'école ?",
        "Ключ от моей квартиры — ещё у соседки",
        "ガレージの鍵",
        "मेरी चाबी रसोई में है",
        "Tôi để chìa khóa ở đâu?",
        "กุญแจอยู่ในลิ้นชัก",
    ],
)
def test_canonically_equivalent_texts_have_the_same_terms(text: str) -> None:
    forms = {tuple(terms.extract_terms(unicodedata.normalize(form, text))) for form in ("NFC", "NFD", "NFKC", "NFKD")}
    assert len(forms) == 1
    queries = {tuple(terms.parse_query(unicodedata.normalize(form, text), []).terms) for form in ("NFC", "NFD")}
    assert len(queries) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ＡＢＣ１２", "abc12"),
        ("①番", "1番"),
        ("ﬁne", "fine"),
        ("İSTANBUL", "istanbul"),
        ("ISPARTA", "ısparta"),
        ("STRASSE", "straße"),
        ("ΟΔΟΣ", "οδος"),
        ("٣٤", "34"),
        ("مُحَمَّد", "محمد"),
        ("co\u00adoperate", "cooperate"),
        ("\u2764\ufe0f", "\u2764"),
        ("\U0001f44d\U0001f3fd", "\U0001f44d"),
    ],
)
def test_compatible_characters_and_cases_have_the_same_terms(one: str, other: str) -> None:
    assert terms.extract_terms(one) == terms.extract_terms(other) != []


def test_emoji_are_terms() -> None:
    assert terms.extract_terms("Pizza \U0001f355\U0001f355 \U0001f1f9\U0001f1f7!") == [
        "pizza", "\U0001f355", "\U0001f355", "\U0001f1f9\U0001f1f7",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("memory", "query", "word"),
    [
        ("Die Schlüssel hängen in der Küche", "Wo ist mein Schlüssel?", "schlussel"),
        ("Les clés sont dans la cuisine", "Où est la clé ?", "cle"),
        ("Las llaves están en la cocina", "¿Dónde está mi llave?", "llav"),
        ("Anahtarlar mutfakta bir çekmecede", "anahtar", "anahtar"),
        ("Ключи лежат на кухне", "Где мой ключ?", "ключ"),
    ],
)
def test_inflected_word_of_another_language_is_found(memory: str, query: str, word: str) -> None:
    assert word in {*terms.extract_terms(memory)} & {*terms.parse_query(query, []).all_forms}


def test_query_in_english_has_one_form_of_each_word() -> None:
    assert terms.parse_query("Where are the notes about my house?", []).forms == {}


def test_query_has_the_terms_of_earlier_versions_as_forms_when_asked() -> None:
    parsed = terms.parse_query("Wo ist der Schlüssel, 東京?", [], earlier=True)
    assert {*terms.extract_terms("Schlüssel 東京", terms.EARLIER)} <= {*parsed.all_forms}


def test_number_like_a_year_is_a_word() -> None:
    parsed = terms.parse_query("Whose locker has the code 1938?", [])
    assert (list(parsed.terms), parsed.period) == (["locker", "code", "1938"], None)
    assert list(terms.parse_query("Where is part 1988-4471?", []).terms) == ["part", "1988", "4471"]


def test_year_is_a_period_and_stays_a_word() -> None:
    parsed = terms.parse_query("What did I do in 2025?", [])
    assert list(parsed.terms) == ["2025"]
    assert parsed.period == (datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC))


def test_weights_rise_with_frequency_and_fall_with_length_within_bounds() -> None:
    once, often = terms.term_weights("cat dog")["cat"], terms.term_weights("cat cat cat dog")["cat"]
    long = terms.term_weights("cat " + " ".join(f"word{number}" for number in range(100)))["cat"]
    assert 0 < long < once < often < terms.term_weights("cat " * 1000)["cat"] + 1 < terms.K1 + 2


def test_long_word_is_cut() -> None:
    assert [len(term) for term in terms.extract_terms("x" * 100_000)] == [terms.MAX_TERM_LENGTH]


@pytest.mark.parametrize(
    "text",
    ["Really?", "Really?! No way.", 'He said "why?"', "how? :)", "本当？", "Wow, lovely! Where did you find it?"],
)
def test_text_with_only_a_question_is_a_question(text: str) -> None:
    assert terms.is_question(text)


@pytest.mark.parametrize("text", ["", "No.", "I painted that sunrise at the lake last year! What about you?"])
def test_text_with_a_statement_is_no_question(text: str) -> None:
    assert not terms.is_question(text)


def test_long_text_is_classified_in_linear_time() -> None:
    assert not terms.is_question("say more " * 20_000 + "a?" + " word" * 100_000)


def test_speaker_in_a_query_is_replaced_by_i_and_my() -> None:
    parsed = terms.parse_query("When did Caroline meet Caroline's sister?", ["Caroline", "Mel", "user", "", "42"])
    assert parsed.text == "When did I meet my sister?"
    assert list(parsed.terms) == ["meet", "sister"]
    assert parsed.speakers == {"Caroline"}


@pytest.mark.parametrize(
    ("query", "speakers"),
    [
        ("what does anna smith like", {"Anna Smith"}),
        ("What does Anna like?", {"Anna Smith"}),
        ("What will she do?", set()),
        ("What does Will do?", {"Will"}),
        ("Did Annabel call?", set()),
        ("Did Will call Anna?", {"Will", "Anna Smith"}),
    ],
)
def test_speakers_are_recognised_by_whole_words(query: str, speakers: set[str]) -> None:
    assert terms.parse_query(query, ["Anna Smith", "Will"]).speakers == speakers


def test_date_is_a_period_and_neither_term_nor_name() -> None:
    parsed = terms.parse_query("What did May cook on 7 May 2023?", ["May"])
    assert parsed.text == "What did I cook on ?"
    assert list(parsed.terms) == ["cook"]
    assert parsed.period == (datetime(2023, 5, 7, tzinfo=UTC), datetime(2023, 5, 8, tzinfo=UTC))


def test_rare_terms_have_larger_shares_and_shares_sum_to_one() -> None:
    shares = terms.idf_shares(["common", "rare", "unknown"], 1000, {"common": 500, "rare": 3})
    assert shares["common"] < shares["rare"] < shares["unknown"]
    assert sum(shares.values()) == pytest.approx(1)
    assert terms.idf_shares([], 1000, {}) == {}


def test_frequency_above_the_count_of_memories_keeps_idf_positive() -> None:
    assert terms.idf(0, 0) > 0
    assert terms.idf_shares(["everywhere"], 10, {"everywhere": 10}) == {"everywhere": 1}


def test_stemming_is_thread_safe() -> None:
    words = [f"running{number}s" for number in range(2000)]
    stem.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        stems = list(pool.map(stem, words * 4))
    stem.cache_clear()
    assert stems == [stem(word) for word in words] * 4
