"""Memories about one subject, which form a group, and a valid insight into them."""

RIDES = (
    "I took the red bicycle along the canal to the market.",
    "The red bicycle needed a new chain after the canal ride.",
    "Riding the red bicycle along the canal clears my head.",
    "The red bicycle got a flat tyre near the canal market.",
)

VALID = {"text": "Rides on the red bicycle along the canal are a habit.", "sources": [1, 3]}
