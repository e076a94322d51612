"""The violation of a guarantee, as a checker reports it."""

from dataclasses import dataclass

#: The longest detail that is printed, in characters.
LONGEST_DETAIL = 600


@dataclass(frozen=True, slots=True)
class Violation:
    """A violated guarantee.

    rule     the guarantee, in one or two words
    subject  what violated it: the id of a job, a response or a memory, or the name of a process
    detail   the evidence
    """

    rule: str
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.subject}: {self.detail[:LONGEST_DETAIL]}"
