"""`/v1/schedules`: turns and meditations that start at scheduled times."""
