"""Terms are stems weighed by BM25; a query's terms exclude the speakers and dates that it names."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from pipelines.memory import terms


def test_terms_are_stems_without_stop_words() -> None:
    assert terms.extract_terms("She's been PAINTING the neighbours\u2019 fences, hasn't she?") == [
        "paint",
        "neighbour",
        "fenc",
    ]
    assert terms.extract_terms("What did Ann's painter paint?") == ["ann", "painter", "paint"]
    assert terms.term_weights("what did you do there?") == {}


def test_script_without_spaces_has_a_term_for_each_character() -> None:
    assert terms.extract_terms("猫が好き 2024") == ["猫", "が", "好", "き", "2024"]


def test_weights_rise_with_frequency_and_fall_with_length_within_bounds() -> None:
    once, often = terms.term_weights("cat dog")["cat"], terms.term_weights("cat cat cat dog")["cat"]
    long = terms.term_weights("cat " + " ".join(f"word{number}" for number in range(100)))["cat"]
    assert 0 < long < once < often < terms.term_weights("cat " * 1000)["cat"] + 1 < terms.K1 + 2


def test_long_word_is_cut() -> None:
    assert [len(term) for term in terms.extract_terms("x" * 100_000)] == [terms.MAX_TERM_LENGTH]


@pytest.mark.parametrize(
    "text",
    ["Really?", "Really?! No way.", 'He said "why?"', "how? :)", "本当？", "Wow, lovely! Where did you find it?"],  # noqa: RUF001
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
    terms.stem.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        stems = list(pool.map(terms.stem, words * 4))
    terms.stem.cache_clear()
    assert stems == [terms.stem(word) for word in words] * 4
