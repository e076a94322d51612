"""`/v1/chat/completions`: the older form of a turn. `request` makes it ours; `chunks` and `objects` make ours it."""
