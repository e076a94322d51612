"""Planted bugs in the path of a payment, which `bench.chaos.charges` must detect."""

from bench.chaos.planted_bug import Edit, PlantedBug

MONEY = (
    PlantedBug(
        "fresh-key",
        "an attempt that repeats a charge has an idempotency key of its own, and looks up that one",
        [
            Edit(
                "pipelines/billing/charge.py",
                '        "method": request.method,\n    }\n',
                '        "method": request.method,\n    }\n'
                "    if attempt.job.attempt > 1:\n"
                "        from dataclasses import replace\n\n"
                '        request = replace(request, payment_id=f"{request.payment_id}-{attempt.job.attempt}")\n',
            )
        ],
        (),
        broker="redis",
        payments=40,
    ),
    PlantedBug(
        "fresh-refund-key",
        "an attempt that repeats a refund has an idempotency key of its own, looks up that one, and no event is first",
        [
            Edit(
                "pipelines/billing/refund.py",
                "    def look_up(key: str)",
                "    if attempt.job.attempt > 1:\n"
                "        from dataclasses import replace\n\n"
                '        request = replace(request, refund_id=f"{request.refund_id}-{attempt.job.attempt}")\n\n'
                "    def look_up(key: str)",
            ),
            Edit(
                "pipelines/billing/webhook_events.py",
                "        return _apply_refund(connection, event, news)\n",
                "        return None\n",
            ),
        ],
        (),
        broker="redis",
        payments=60,
    ),
)
