"""Given what a client has received of a batch, when it is checked, then each broken guarantee is reported."""

from dataclasses import replace

import pytest

from bench.chaos.batch_rules import check_received
from bench.chaos.transcripts import BatchTranscript, RecordedReply


def answer(custom_id, text="one two", tokens=2, status="completed"):
    body = {
        "status": status,
        "output": [{"type": "message", "content": [{"text": text}]}],
        "usage": {"output_tokens": tokens},
    }
    return {"custom_id": custom_id, "response": {"status_code": 200, "body": body}, "error": None}


def error(custom_id, code="batch_cancelled"):
    return {"custom_id": custom_id, "response": None, "error": {"code": code}}


def final(status="completed", completed=3, failed=0):
    counts = {"total": 3, "completed": completed, "failed": failed}
    return {"status": status, "request_counts": counts, "errors": None}


WHOLE = BatchTranscript(
    "batch",
    "batchclient-70",
    "acct_1",
    "7-batchclient-70-0",
    {},
    0.0,
    id="batch_1",
    final=final(),
    lines=("a", "b", "c"),
    output=[answer("a"), answer("b"), answer("c")],
)
CANCELLED = replace(
    WHOLE,
    cancels=[RecordedReply(0.0, 200)],
    final=final("cancelled", 1, 2),
    output=[answer("b")],
    errors=[error("a"), error("c")],
)


@pytest.mark.parametrize("transcript", [WHOLE, CANCELLED, replace(WHOLE, cancels=CANCELLED.cancels)])
def test_whole_batch_is_accepted(transcript):
    assert list(check_received(transcript)) == []


@pytest.mark.parametrize(
    ("transcript", "rule"),
    [
        (replace(WHOLE, final=final("failed")), "ends"),
        (replace(WHOLE, final=final("cancelled")), "ends"),
        (replace(WHOLE, output=WHOLE.output[:2], final=final(completed=2)), "each line once"),
        (replace(WHOLE, output=[*WHOLE.output, answer("c")], final=final(completed=4)), "each line once"),
        (replace(WHOLE, output=WHOLE.output[::-1]), "order"),
        (replace(WHOLE, final=final(completed=2)), "batch counts"),
        (replace(WHOLE, output=[*WHOLE.output[:2], answer("c", tokens=3)]), "whole answers"),
        (replace(WHOLE, output=[*WHOLE.output[:2], answer("c", status="in_progress")]), "whole answers"),
        (replace(WHOLE, output=WHOLE.output[:2], errors=[error("c")], final=final("completed", 2, 1)), "ends"),
        (replace(CANCELLED, errors=[error("a"), error("c", "server_error")]), "ends"),
    ],
)
def test_broken_guarantee_is_reported(transcript, rule):
    assert [violation.rule for violation in check_received(transcript)] == [rule]
