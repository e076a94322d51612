"""What is watched: panels of lines, and what each may do."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bench.soak.verdict import ByUse, Flat, Judged, Point, Rule, Seen, judge

MIB = 2.0**20

#: A panel's key, and a line in it.
Name = tuple[str, str]

#: Values that were read at one moment.
Reading = Mapping[Name, float]


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines of one unit: `bytes`, `s`, or the name of what is counted. Some may do what others may not."""

    title: str
    unit: str
    rule: Rule
    exceptions: Mapping[str, Rule] = field(default_factory=dict)

    def rule_of(self, line: str) -> Rule:
        """What a line may do."""
        return self.exceptions.get(line, self.rule)


#: A leak of half a kilobyte a piece of work is found as soon as it has come to 4 MiB.
MEMORY = Flat(least=4 * MIB, each=512, step=32 * MIB)

#: One handle, thread or connection that is lost in a thousand pieces of work.
HANDLES = Flat(least=6, each=1 / 1000)

#: What waits comes and goes; a backlog grows.
WAITING = Flat(least=40, each=1 / 500)

PANELS: Mapping[str, Panel] = {
    "memory": Panel("Memory of ours, unshared", "bytes", MEMORY),
    "resident": Panel("Resident memory of ours", "bytes", Seen()),
    "servers": Panel("Memory of the servers", "bytes", MEMORY, {
        "valkey": ByUse(2 * MIB),  # journals of ended jobs stay a while
        "rabbitmq": ByUse(32 * MIB),  # its write-ahead log stands in memory until it is full
        "postgres": Flat(least=16 * MIB, each=512, step=256 * MIB),  # each session's caches
    }),
    "files": Panel("File descriptors of ours", "descriptors", HANDLES),
    "server files": Panel("Descriptors of the servers", "descriptors", HANDLES, {
        "postgres": Flat(least=400, each=1 / 100),  # each session opens the tables and indexes that it meets
    }),
    "threads": Panel("Threads", "threads", HANDLES),
    "connections": Panel("Connections", "connections", HANDLES),
    "jobs": Panel("Unfinished jobs, work under way", "jobs", WAITING),
    "queues": Panel("Messages in queues", "messages", WAITING),
    "keys": Panel("Keys in Valkey", "keys", Flat(least=100, each=1 / 500), {
        # They go after two minutes, within the warm-up: then there are as many as jobs end in that time, more or less.
        "journals of ended jobs": Flat(least=1_000, each=1 / 4),
        "others that expire": ByUse(50),
        "that never expire": Flat(least=20, each=1 / 2000),
    }),
    "tables": Panel("Tables with indexes", "bytes", ByUse(MIB)),
    "dead": Panel("Dead rows that autovacuum owes", "rows", Flat(least=3_000, each=1 / 5)),
    "latency": Panel("A streamed turn's time", "s", Seen()),
    "rate": Panel("Work done a second", "/s", Seen()),
}  # fmt: skip


@dataclass(slots=True)
class Records:
    """All that was read, by panel and line."""

    points: dict[Name, list[Point]] = field(default_factory=dict)

    def add(self, at: float, work: float, reading: Reading) -> None:
        """What was read after so many seconds and pieces of work."""
        for name, value in reading.items():
            self.points.setdefault(name, []).append(Point(at, work, value))

    def lines(self, panel: str) -> Sequence[str]:
        """The lines of a panel, the largest at the end first."""
        found = [(points[-1].value, line) for (key, line), points in self.points.items() if key == panel]
        return [line for _, line in sorted(found, key=lambda each: -each[0])]

    def judged(self) -> Iterator[tuple[str, str, Judged]]:
        """Panel, line and what it does, in the order of the panels."""
        for key, panel in PANELS.items():
            for line in self.lines(key):
                yield key, line, judge(self.points[key, line], panel.rule_of(line))
