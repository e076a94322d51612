"""The markup of a call in an answer, the one introduced by Hermes: `<tool_call>` around a JSON object."""

CALL_OPEN, CALL_CLOSE = "<tool_call>\n", "\n</tool_call>"

#: What separates the parts of a call, exactly: a partial answer is rendered as the model wrote it.
NAME_KEY, ARGUMENTS_KEY, OBJECT_END = '{"name": ', ', "arguments": ', "}"
