"""Check JSON Schemas and grammars of callers in a child process with limits on CPU time and memory.

`compiler` is the parent's side, `child` the process, `schema_check` what it runs, `json_rule` the grammar's text.
"""
