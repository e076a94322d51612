"""The clock door: the sweeper, and the timetable of periodic jobs, of which one process at a time is the leader."""
