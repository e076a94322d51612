"""Turns: from the request to the answer.

`start` inserts a turn and enqueues its job, in a `thread`; `token_count` only counts its tokens. `turn` runs it on an
engine: `prompt` assembles the engine's input, `memory_prompt` adds memories, `transcript` reads the journal of earlier
attempts, `answer_writer` journals the answer, `response_objects` builds OpenAI's JSON. `deletion` deletes turns and
conversations, `cancellation` cancels jobs.
"""
