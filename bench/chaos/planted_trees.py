"""Planted bugs in the calls of agents, which the trees of a run must detect."""

from bench.chaos.planted_bug import Edit, PlantedBug

TREES = (
    PlantedBug(
        "doubt-repeated",
        "a call whose worker died is repeated without asking anybody",
        [
            Edit(
                "pipelines/agents/tool_call.py",
                "    if call.repeatable or _task_id(attempt) is not None:\n",
                "    if call.name:\n",
            )
        ],
        ("kill-light",),
        broker="redis",
    ),
    PlantedBug(
        "shared-call-key",
        "the calls of a turn have one unique key, so that the second one is never inserted",
        [
            Edit(
                "pipelines/agents/server_tools.py",
                "unique_key=f\"tool_call:{item['id']}{repeated}\"",
                'unique_key=f"tool_call:{response.id}{repeated}"',
            )
        ],
        ("kill-web",),
        broker="redis",
        minutes=0.25,
    ),
    PlantedBug(
        "denied-dispatched",
        "a call is made that a person has denied",
        [
            Edit(
                "pipelines/chat/server_calls.py",
                '    elif status == "approved" and tool is not None and _is_as_approved',
                '    elif status in ("approved", "denied") and tool is not None and _is_as_approved',
            )
        ],
        ("kill-web",),
        broker="redis",
    ),
)
