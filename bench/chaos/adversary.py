"""The adversary: a process in which a hostile account attacks the platform that the fleet works on.

It is a process of its own, so that its threads cost the fleet's clients nothing but the platform's time.
"""

import contextlib
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from bench.chaos.attacks import ATTACKS, Attack
from bench.chaos.hostile_account import HostileAccount
from bench.chaos.victim import Victim, create_victim, losses, sign_up
from bench.chaos.violations import Violation
from bench.harness.client import Address, Client
from bench.harness.helper import Helper, helper, write_line
from bench.harness.sse import CheckFailed
from bench.harness.stack import leave_unverified_plan
from bench.harness.waiting import wait_until
from models.jobs.jobs import UNFINISHED
from models.platform.ids import new_id
from models.platform.settings import Settings

#: Seconds that attacks have to end once they are interrupted, and cancelled jobs: a text that is being embedded is not
#: interrupted.
STOP_TIMEOUT, CANCEL_TIMEOUT = 30.0, 120.0

RULE = "adversary"


@dataclass(frozen=True, slots=True)
class AttackResult:
    """The answers by attack and status, and those that were wrong: attack, request and problem."""

    counts: Mapping[str, Mapping[str, int]]
    problems: Sequence[tuple[str, str, str]]


class Adversary:
    """The parent's side. Attacks run from `start` to `stop`, perhaps several times."""

    def __init__(self, child: Helper, address: Address, token: str, victim: Victim) -> None:
        self._child = child
        self._token = token
        self._address = address
        self.victim = victim
        self._running = False
        self.results: list[AttackResult] = []

    def start(self, attacks: Sequence[str]) -> None:
        """Start attacks, each again and again. Raises CheckFailed."""
        self._running = True
        self._child.request({"attacks": attacks})

    def finished_rounds(self) -> int:
        """Return how often each of the running attacks was carried out at least. Raises CheckFailed."""
        count: int = self._child.request({"finished": True})["finished"]
        return count

    def stop(self) -> None:
        """Interrupt the attacks, if there are any. Raises CheckFailed where the adversary itself has failed."""
        if self._running:
            self._running = False
            answer = self._child.request({"attacks": []})
            self.results.append(AttackResult(answer["counts"], [tuple(each) for each in answer["problems"]]))

    @property
    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """The answers of all attacks so far, by attack and status."""
        counts: dict[str, Counter[str]] = {}
        for result in self.results:
            for name, statuses in result.counts.items():
                counts.setdefault(name, Counter()).update(statuses)
        return {name: dict(statuses) for name, statuses in counts.items()}

    def cancel_jobs(self) -> None:
        """Cancel what the attacks have left, and wait until it has ended. Raises TimeoutError after CANCEL_TIMEOUT."""
        wait_until(lambda: not self._cancel_unfinished(), CANCEL_TIMEOUT, interval=0.25, what="the adversary's jobs")

    def violations(self) -> Sequence[Violation]:
        """Return the wrong answers so far, and what the victim has lost. Call it while no fault is active.

        What the attacks have left, which may be hours of work, is cancelled first.
        """
        self.stop()
        wrong = [
            Violation(RULE, name, f"{request} {problem}")
            for result in self.results
            for name, request, problem in result.problems
        ]
        try:
            self.cancel_jobs()
        except TimeoutError as error:
            wrong.append(Violation(RULE, "cancelled jobs", str(error)))
        return [*wrong, *(Violation(RULE, "victim", loss) for loss in losses(self.victim, self._address))]

    def _cancel_unfinished(self) -> int:
        """Request the end of all jobs that have not ended; returns their number, or 1 where it is unknown."""
        with contextlib.suppress(CheckFailed, OSError), closing(Client(self._address, self._token)) as client:
            jobs = [job for state in UNFINISHED for job in client.get(f"/v1/jobs?limit=100&state={state}")["data"]]
            for job in jobs:
                with contextlib.suppress(CheckFailed):  # it has ended meanwhile
                    client.post(f"/v1/jobs/{job['id']}/cancel", {})
            return len(jobs)
        return 1


@contextmanager
def adversary(addresses: Sequence[Address], settings: Settings, *, faults: bool, seed: int = 0) -> Iterator[Adversary]:
    """Create the accounts of victim and adversary, and run the adversary's process until the end of the block.

    Call it while no fault is active. `faults`: some are injected later, which excuse a missing answer.
    """
    victim, name = create_victim(addresses[0]), new_id("adversary")
    token = sign_up(addresses[0], f"{name}@example.com", name)["key"]
    leave_unverified_plan(settings)  # whose limits would refuse most attacks
    values = {
        "addresses": addresses, "token": token, "faults": faults, "seed": seed,
        "victim": {name: getattr(victim, name) for name in Victim.__slots__},
    }  # fmt: skip
    with helper("bench.chaos.adversary") as child:
        child.request(values)
        yield Adversary(child, addresses[0], token, victim)


# The code below runs in the child process.


class AttackRound:
    """Attacks that run at the same time, each on a thread of its own."""

    def __init__(self, account: HostileAccount, attacks: Mapping[str, Attack]) -> None:
        self.account = account
        self.finished = dict.fromkeys(attacks, 0)
        self._errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._repeat, args=[name, attack], daemon=True) for name, attack in attacks.items()
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> Mapping[str, Any]:
        """Interrupt all attacks; returns their result, or an `error` of the adversary itself."""
        self.account.stop()
        for thread in self._threads:
            thread.join(STOP_TIMEOUT)
        if self._errors:
            return {"error": self._errors[0]}
        counts: dict[str, dict[str, int]] = {}
        for (name, status), count in sorted(self.account.counts.items()):
            counts.setdefault(name, {})[str(status)] = count
        return {"counts": counts, "problems": self.account.problems}

    def _repeat(self, name: str, attack: Attack) -> None:
        try:
            with self.account.attacking(name):
                while not self.account.stopped:
                    attack.run(self.account)
                    self.finished[name] += 1
                    self.account.wait(attack.interval)
        except Exception as error:  # noqa: BLE001 - reported to the parent
            if not self.account.stopped:
                self._errors.append(f"attack {name}: {error!r}")


def main() -> None:
    """Start and stop attacks as the parent requests."""
    values = read_line()
    values["victim"] = Victim(**values["victim"])
    values["addresses"] = [(host, port) for host, port in values["addresses"]]
    write_line("ready")
    running: AttackRound | None = None
    while request := read_line():
        if "finished" in request:
            write_line({"finished": min(running.finished.values()) if running else 0})
            continue
        result = running.stop() if running else {}
        names = request["attacks"]
        running = AttackRound(HostileAccount(**values), {name: ATTACKS[name] for name in names}) if names else None
        write_line(result)


def read_line() -> Any:
    """Read a JSON line; None at the end of the input."""
    line = sys.stdin.buffer.readline()
    return orjson.loads(line) if line else None


if __name__ == "__main__":
    main()
