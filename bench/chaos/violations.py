"""What a checker found wrong: which promise was broken, by what, and how that shows."""

from dataclasses import dataclass

#: Characters of a detail that a report has room for.
LONGEST_DETAIL = 600


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise.

    rule     the promise, in one or two words
    subject  what broke it: the id of a job, a response, a memory; or a part's name
    detail   how that shows, for whoever goes after it
    """

    rule: str
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.subject}: {self.detail[:LONGEST_DETAIL]}"
