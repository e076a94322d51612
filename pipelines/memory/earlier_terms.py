"""Extract terms as versions before schema 0021 do: for spaces whose memories are still indexed under these.

English stems, a term for each character of kana and CJK, and no normalisation. See `reindex`.
"""

import re

from pipelines.memory.stemmers import stem
from pipelines.memory.stopwords import STOP_WORDS

MAX_TERM_LENGTH = 40

WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+(?:'[^\W\d_]+)?")


def extract_terms(text: str) -> list[str]:
    """Return the stems of a text's words without stop words, in order, with repeats."""
    words = (word for word in WORD.findall(text.casefold().replace("’", "'")) if word not in STOP_WORDS)  # noqa: RUF001
    return [stem(word.removesuffix("'s")[:MAX_TERM_LENGTH], "english") for word in words]
