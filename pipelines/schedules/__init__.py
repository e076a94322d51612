"""The clock's verbs: when a schedule fires, what that starts, and how users keep schedules of their own."""
