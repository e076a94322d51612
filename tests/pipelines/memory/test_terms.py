"""Terms of memories and of questions.

Given a text, when its terms are weighed, then its words weigh by their stems, more the oftener, less in a long text.
Given a question, when it is taken apart, then names of speakers and dates are no terms, and both are told.
"""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from pipelines.memory import terms


def test_words_meet_by_their_stems_and_stop_words_find_nothing() -> None:
    assert terms.extract_terms("She's been PAINTING the neighbours\u2019 fences, hasn't she?") == [
        "paint",
        "neighbour",
        "fenc",
    ]
    assert terms.extract_terms("What did Ann's painter paint?") == ["ann", "painter", "paint"]
    assert terms.term_weights("what did you do there?") == {}


def test_a_script_without_spaces_has_a_term_for_each_sign() -> None:
    assert terms.extract_terms("猫が好き 2024") == ["猫", "が", "好", "き", "2024"]


def test_weights_rise_with_frequency_and_fall_with_length_within_bounds() -> None:
    once, often = terms.term_weights("cat dog")["cat"], terms.term_weights("cat cat cat dog")["cat"]
    long = terms.term_weights("cat " + " ".join(f"word{number}" for number in range(100)))["cat"]
    assert 0 < long < once < often < terms.term_weights("cat " * 1000)["cat"] + 1 < terms.K1 + 2


def test_a_word_of_any_length_is_a_term_of_bounded_length() -> None:
    assert [len(term) for term in terms.extract_terms("x" * 100_000)] == [terms.MAX_TERM_LENGTH]


@pytest.mark.parametrize(
    "text",
    ["Really?", "Really?! No way.", 'He said "why?"', "how? :)", "本当？", "Wow, lovely! Where did you find it?"],  # noqa: RUF001
)
def test_a_text_that_only_asks_asks(text: str) -> None:
    assert terms.is_question(text)


@pytest.mark.parametrize("text", ["", "No.", "I painted that sunrise at the lake last year! What about you?"])
def test_a_text_that_says_something_does_not(text: str) -> None:
    assert not terms.is_question(text)


def test_whether_a_long_text_asks_is_known_soon() -> None:
    assert not terms.is_question("say more " * 20_000 + "a?" + " word" * 100_000)


def test_a_speaker_in_a_question_speaks_as_i() -> None:
    asked = terms.parse_query("When did Caroline meet Caroline's sister?", ["Caroline", "Mel", "user", "", "42"])
    assert asked.text == "When did I meet my sister?"
    assert list(asked.terms) == ["meet", "sister"]
    assert asked.speakers == {"Caroline"}


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
def test_speakers_are_named_by_whole_words(query: str, speakers: set[str]) -> None:
    assert terms.parse_query(query, ["Anna Smith", "Will"]).speakers == speakers


def test_a_date_is_a_period_and_no_term_and_no_name() -> None:
    asked = terms.parse_query("What did May cook on 7 May 2023?", ["May"])
    assert asked.text == "What did I cook on ?"
    assert list(asked.terms) == ["cook"]
    assert asked.period == (datetime(2023, 5, 7, tzinfo=UTC), datetime(2023, 5, 8, tzinfo=UTC))


def test_rare_terms_have_the_larger_share_and_shares_come_to_one() -> None:
    shares = terms.idf_shares(["common", "rare", "unknown"], 1000, {"common": 500, "rare": 3})
    assert shares["common"] < shares["rare"] < shares["unknown"]
    assert sum(shares.values()) == pytest.approx(1)
    assert terms.idf_shares([], 1000, {}) == {}


def test_a_frequency_that_has_run_ahead_of_the_count_does_no_harm() -> None:
    assert terms.idf(0, 0) > 0
    assert terms.idf_shares(["everywhere"], 10, {"everywhere": 10}) == {"everywhere": 1}


def test_threads_stem_alike() -> None:
    words = [f"running{number}s" for number in range(2000)]
    terms.stem.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(terms.stem, words * 4))
    terms.stem.cache_clear()
    assert found == [terms.stem(word) for word in words] * 4
