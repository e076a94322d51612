"""The settings of the scripted engine, which tests and measurements use."""

from pydantic import BaseModel, ConfigDict, Field


class Script(BaseModel):
    """The answers and faults of the scripted engine, from `SANGHA_SCRIPT=tokens=20,rate=0,…`.

    A fault occurs once per attempt. An attempt that continues exactly where a fault occurred passes it, so a retry
    recovers from a fault after token 0. A fault at token 0, or one with `restarts`, occurs in every attempt.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    tokens: int = Field(20, ge=0, le=1_000_000)
    """Tokens per answer: `w0 w1 w2 …`, each followed by a space."""
    rate: float = Field(0, ge=0)
    """Tokens per second of one answer; 0 is as fast as possible."""
    fail_at: int | None = Field(None, ge=0)
    """Raise an error before this token; 0 is the first."""
    exit_at: int | None = Field(None, ge=0)
    """End the process before this token."""
    hang_at: int | None = Field(None, ge=0)
    """Stop before this token until the job is cancelled or its time limit passes."""
    trigger: str = ""
    """Word that the last user message must contain for a fault to occur; empty: no word is needed."""
    restarts: bool = False
    """Whether the engine cannot continue a prefix and begins its answer again."""
    calls: int = Field(1, ge=1, le=16)
    """Tool calls per answer that makes tool calls, where several are allowed."""
    preface: int = Field(0, ge=0, le=1_000_000)
    """Tokens of text before the tool calls, where calls are optional."""
    reasoning: int = Field(0, ge=0, le=1_000_000)
    """Tokens of reasoning before each answer: `r0 r1 r2 …`."""
    nonce: bool = False
    """Whether each attempt's words carry a random mark of their own: `w0.3f9a w1.3f9a …`."""
    slow: float = Field(0, ge=0)
    """Tokens per second of an answer whose last user message contains `slowly`; 0: as any other."""
