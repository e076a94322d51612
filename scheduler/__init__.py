"""The scheduler process: fires due schedules and recovers lost jobs. Any number of them may run at once."""
