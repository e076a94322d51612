"""People and applications: coming in, accounts and their members, keys, exports, and what operators may do."""
