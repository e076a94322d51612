"""Add to the item of a call what its job has returned: the output of a tool, or the answer of an agent."""

from collections.abc import Mapping
from typing import Any

from models.jobs.jobs import Job
from models.turns.responses import Response
from pipelines.chat.mcp_items import execution_error
from pipelines.chat.response_objects import item_text

Item = Mapping[str, Any]


def call_outcome(item: Item, job: Job) -> Item:
    """Return the item of a call with its output, or with what went wrong."""
    if job.state == "completed" and job.result is not None:
        error = job.result.get("error")
        return {**item, "status": "failed" if error else "completed", "error": error,
                "output": None if error else job.result.get("output")}  # fmt: skip
    text = (job.error or {}).get("message") or "The call was cancelled."
    return {**item, "status": "failed", "error": execution_error(text)}


def agent_outcome(item: Item, response: Response | None) -> Item:
    """Return the item of a delegation with the agent's answer."""
    if response is not None and response.status == "completed":
        return {**item, "status": "completed", "output": answer_text(response)}
    return {**item, "status": "failed", "error": execution_error(_agent_failure(response))}


def _agent_failure(response: Response | None) -> str:
    if response is None:
        return "The answer of the agent was deleted."
    if response.status == "incomplete":
        reason = (response.incomplete_details or {}).get("reason")
        return f"The agent stopped at a limit ({reason}). Its answer so far: {answer_text(response)}"
    message = (response.job_error or {}).get("message")
    return f"The agent failed: {message}" if message else "The agent was cancelled."


def answer_text(response: Response) -> str:
    """Return the text of a response's last message."""
    messages = [item for item in response.output if item["type"] == "message"]
    return item_text(messages[-1]) if messages else ""
