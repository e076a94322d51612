"""Given the modules of this room, then its map names each of them once."""

import pkgutil
import re
from collections import Counter

import models


def test_the_map_names_each_module_once():
    there = {module.name for module in pkgutil.iter_modules(models.__path__)}
    _, lines = models.__doc__.split("by subject:")

    named = Counter(word for word in re.findall(r"\w+(?=[,;.]|$)", lines, re.MULTILINE))

    assert there - set(named) == set()
    assert {name for name in there if named[name] > 1} == set()
