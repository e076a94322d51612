# ruff: noqa: RUF001, E501 - letters of other scripts
"""Detect the language of a text, as far as stemming and stop words need it: by script, and by function words.

A model that detects languages would take tens of megabytes in each process and is unsure of a short query, too. Where a
query's language is uncertain, its words are searched for under the stems of several languages (`terms`).
"""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

import regex

from pipelines.memory.stopwords import STOP_WORDS

#: Function words of languages in Latin script, in lower case. Words of more than one language count for each.
_LATIN: Final = {
    "german": """der die das den dem des ein eine einen einem einer und oder aber nicht kein keine ich du er sie es wir
        ihr mein meine meinen meinem meiner dein deine sein seine ist sind war waren bin bist hat habe haben hatte wird
        werden wurde mit von vom zu zum zur im in an am auf aus bei für nach über unter vor wie was wer wo wann warum
        welche welcher welches wohin woher dass als auch noch nur schon sich mich mir dich dir uns""",
    "french": """le la les un une des du de et ou mais ne pas je tu il elle nous vous ils elles mon ma mes ton ta tes
        son sa ses ce cette ces est sont était suis es ai as a avons ont avait avec dans en sur sous pour par chez que
        qui quoi où quand pourquoi comment quel quelle quels quelles au aux me te se y""",
    "spanish": """el la los las un una unos unas y o pero no yo tú él ella nosotros ellos mi mis tu tus su sus es son era
        fue está están estoy soy he ha han había con en de del al a por para sobre que qué quién dónde cuándo cómo cuál
        cuáles me te se lo le les""",
    "italian": """il lo la i gli le un uno una e o ma non io tu lui lei noi loro mio mia miei mie tuo tua suo sua è sono
        era ero ho hai ha abbiamo hanno con in di del della dei da dal a al alla per su che chi dove quando come quale
        perché cosa mi ti si ci""",
    "portuguese": """o a os as um uma uns umas e ou mas não eu tu ele ela nós eles meu minha meus minhas seu sua é são era
        foi está estão estou sou tenho tem com em de do da dos das no na nos nas ao por para que quem onde quando como
        qual quais me se lhe""",
    "dutch": """de het een en of maar niet geen ik jij je hij zij ze wij we mijn jouw zijn haar is was waren ben heb hebt
        heeft had hebben met van naar in op aan bij voor uit over onder wat wie waar wanneer waarom hoe welke dat deze
        die er ook nog""",
    "swedish": """och eller men inte jag du han hon den det vi ni de min mitt mina din är var har hade med av till i på
        från för om hos vad vem var när varför hur vilken vilket att som en ett""",
    "turkish": """ve veya ama değil ben sen o biz siz onlar benim senin onun bizim bu şu bir ile için gibi kadar ne kim
        nerede nereye nereden zaman nasıl neden hangi kaç mi mı mu mü var yok da de çok daha en""",
    "polish": """i lub ale nie ja ty on ona my wy oni mój moja moje twój jest są był była było mam ma z ze do na w we od
        po przez dla o co kto gdzie kiedy jak dlaczego który która które się to ten ta""",
    "indonesian": """dan atau tetapi tidak saya aku kamu dia kami kita mereka ini itu di ke dari untuk dengan pada yang
        apa siapa mana kapan mengapa bagaimana adalah ada""",
    "english": "",
}  # fmt: skip

_RUSSIAN: Final = """
и или но не я ты он она оно мы вы они мой моя моё мои твой твоя его её их наш это этот эта в во на с со к у о об
от до по за из для при над под что кто где когда почему как какой какая какие куда откуда мне меня мной тебя был
была было были есть нет же ли бы
"""
_ARABIC: Final = """
في من إلى على عن مع هو هي هم أنا أنت نحن هذا هذه ذلك التي الذي ما ماذا من أين متى كيف لماذا هل لا لم لن كان كانت
قد و أو ثم
"""
_HINDI: Final = """
का के की को से में पर और या नहीं मैं मेरा मेरी मेरे तुम आप वह यह हम वे है हैं था थी थे हूँ क्या कौन कहाँ कहां कब
क्यों कैसे किस किसका किसकी ने भी तो ही
"""

#: Languages by the script of a word's first letter, in the names of Snowball.
SCRIPT_LANGUAGES: Final = {
    "Cyrillic": "russian",
    "Arabic": "arabic",
    "Devanagari": "hindi",
    "Greek": "greek",
    "Armenian": "armenian",
    "Tamil": "tamil",
}

#: The language of Latin text without evidence of another.
DEFAULT = "english"

#: Languages under whose stems the words of a query of uncertain language are searched.
LATIN_LANGUAGES = tuple(_LATIN)

#: Function words by language.
FUNCTION_WORDS: Final = {
    **{language: frozenset(words.split()) for language, words in _LATIN.items()},
    DEFAULT: STOP_WORDS,
    "russian": frozenset(_RUSSIAN.split()),
    "arabic": frozenset(_ARABIC.split()),
    "hindi": frozenset(_HINDI.split()),
}

_LANGUAGES_OF_WORD: Final = {
    word: [language for language in LATIN_LANGUAGES if word in FUNCTION_WORDS[language]]
    for word in {word for language in LATIN_LANGUAGES for word in FUNCTION_WORDS[language]}
}

_SCRIPT = regex.compile("|".join(rf"(?P<{script}>\p{{{script}}})" for script in SCRIPT_LANGUAGES))


def script_language(word: str) -> str | None:
    """Return the language that stands for a word's script; None for Latin and scripts without a stemmer."""
    if word[0] < "\u0370":
        return None
    match = _SCRIPT.match(word)
    return SCRIPT_LANGUAGES[str(match.lastgroup)] if match else None


def latin_languages(words: Collection[str]) -> Sequence[str]:
    """Return the languages with the most function words among these words of Latin script; English alone if it is one.

    Nothing without evidence: another language than English needs two function words, or one and a letter that English
    does not have, because "Kim" and "die" are English words too.
    """
    votes = Counter(language for word in set(words) for language in _LANGUAGES_OF_WORD.get(word, ()))
    most = max(votes.values(), default=0)
    likely = [language for language, count in votes.items() if count == most]
    if DEFAULT in likely:
        return [DEFAULT]
    return likely if most > 1 or not all(word.isascii() for word in words) else []
