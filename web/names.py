"""Names that people give to themselves and to their accounts."""

from typing import Annotated

from pydantic import StringConstraints

#: A line of text that can stand in a list, a letter and a log: no control characters, no line breaks of any kind.
Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+$")]
