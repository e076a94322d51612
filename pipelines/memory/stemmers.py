"""Stem words by Snowball's algorithms."""

from functools import lru_cache
from threading import Lock
from typing import Any

import snowballstemmer

_lock = Lock()

_stemmers: dict[str, Any] = {}


@lru_cache(maxsize=65536)
def stem(word: str, language: str = "english") -> str:
    """Stem a word. Cached, as stemming takes 20 µs and more; locked, as a stemmer keeps the word in its state."""
    with _lock:
        if language not in _stemmers:
            _stemmers[language] = snowballstemmer.stemmer(language)
        return str(_stemmers[language].stemWord(word))
