"""Chat: a turn from the request to the answer.

`start` writes it down and enqueues its job, at the `place` where it goes on; `count` only counts its tokens. `turn`
runs it on an engine, `prompt` says what the engine is asked, `transcript` reads what earlier attempts have said,
`objects` shows it as OpenAI's API does.
"""
