"""The monitored series: panels of lines, and the rule of each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bench.soak.verdict import Flat, Point, Proportional, Rule, ShownOnly, Verdict, judge

MIB = 2.0**20

#: The key of a panel, and a line in it.
SeriesName = tuple[str, str]

#: Values read at one moment.
Reading = Mapping[SeriesName, float]


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines of one unit: `bytes`, `s`, or the name of what is counted; `exceptions` are rules of single lines."""

    title: str
    unit: str
    rule: Rule
    exceptions: Mapping[str, Rule] = field(default_factory=dict)

    def rule_of(self, line: str) -> Rule:
        """Return the rule of a line."""
        return self.exceptions.get(line, self.rule)


#: A leak of half a kilobyte an operation is detected as soon as it amounts to 4 MiB.
MEMORY = Flat(least=4 * MIB, each=512, step=32 * MIB)

#: One descriptor, thread or connection lost in a thousand operations.
HANDLES = Flat(least=6, each=1 / 1000)

#: What waits fluctuates; a backlog grows.
WAITING = Flat(least=40, each=1 / 500)

PANELS: Mapping[str, Panel] = {
    "memory": Panel("Memory of Sangha, unshared", "bytes", MEMORY),
    "resident": Panel("Resident memory of Sangha", "bytes", ShownOnly()),
    "servers": Panel("Memory of the servers", "bytes", MEMORY, {
        "valkey": Proportional(2 * MIB),  # journals of ended jobs are kept for two minutes
        "rabbitmq": Proportional(32 * MIB),  # its write-ahead log is in memory until it is full
        "postgres": Flat(least=16 * MIB, each=512, step=256 * MIB),  # each session's caches
    }),
    "files": Panel("File descriptors of Sangha", "descriptors", HANDLES),
    "server files": Panel("Descriptors of the servers", "descriptors", HANDLES, {
        "postgres": Flat(least=400, each=1 / 100),  # each session opens the tables and indexes that it uses
    }),
    "threads": Panel("Threads", "threads", HANDLES),
    "connections": Panel("Connections", "connections", HANDLES),
    "jobs": Panel("Unfinished jobs and operations", "jobs", WAITING),
    "queues": Panel("Messages in queues", "messages", WAITING),
    "keys": Panel("Keys in Valkey", "keys", Flat(least=100, each=1 / 500), {
        # They expire after two minutes, which is within the warm-up. Then there is one per job ended in that time.
        "journals of ended jobs": Flat(least=1_000, each=1 / 4),
        "others that expire": Proportional(50),
        "that never expire": Flat(least=20, each=1 / 2000),
    }),
    "tables": Panel("Tables with indexes", "bytes", Proportional(MIB)),
    "dead": Panel("Dead rows due for vacuum", "rows", Flat(least=3_000, each=1 / 5)),
    "latency": Panel("Duration of a streamed turn", "s", ShownOnly()),
    "rate": Panel("Operations a second", "/s", ShownOnly()),
}  # fmt: skip


@dataclass(slots=True)
class SeriesSet:
    """All readings, by panel and line."""

    points: dict[SeriesName, list[Point]] = field(default_factory=dict)

    def add(self, at: float, operations: float, reading: Reading) -> None:
        """Add a reading, taken after so many seconds and operations."""
        for name, value in reading.items():
            self.points.setdefault(name, []).append(Point(at, operations, value))

    def lines(self, panel: str) -> Sequence[str]:
        """Return the lines of a panel, sorted by their last value, the largest first."""
        last_values = [(points[-1].value, line) for (key, line), points in self.points.items() if key == panel]
        return [line for _, line in sorted(last_values, key=lambda each: -each[0])]

    def verdicts(self) -> Iterator[tuple[str, str, Verdict]]:
        """Yield panel, line and verdict, in the order of the panels."""
        for key, panel in PANELS.items():
            for line in self.lines(key):
                yield key, line, judge(self.points[key, line], panel.rule_of(line))
