"""Planted bugs in the path of a webhook, which the receiver of a run must detect."""

from bench.chaos.planted_bug import Edit, PlantedBug

WEBHOOKS = (
    PlantedBug(
        "webhook-refused",
        "an event counts as delivered with any answer, so that one which was refused is not sent again",
        [
            Edit(
                "pipelines/delivery/webhook_delivery.py",
                "    if answer.accepted:\n",
                "    if answer.status_code is not None:\n",
            )
        ],
        ("kill-light",),
        broker="redis",
    ),
    PlantedBug(
        "cancelled-without-event",
        "a response that is cancelled before its first attempt has no event",
        [
            Edit(
                "pipelines/chat/cancellation.py",
                "    response_events.record_cancelled(connection, result.ended)\n",
                "",
            )
        ],
        ("kill-web",),
        broker="redis",
    ),
)
