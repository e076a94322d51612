"""`/v1/schedules`: turns and meditations at given times."""
