"""What is measured: one row of the table per workload.

A workload has two sides, measured alternately; a side is a server and what ``load`` does to it. Mostly the sides
are the two servers under the same load, and the figure is the ratio of their speeds. Where it is our own speed under
two loads, or a size in bytes, the row says so.
"""

from __future__ import annotations

from dataclasses import dataclass

# A pipelining submitter keeps 1,000 jobs on their way and writes 500 at once: the server is the limit, not the wire.
_PIPELINED = "--clients 4 --outstanding 1000 --refill 500"
_WHOLE_TIME = "--jobs 4000000 --seconds 2"


@dataclass(frozen=True)
class Workload:
    """One thing to measure; ``load`` and ``quick`` are options of the program ``load``."""

    name: str
    title: str
    load: str
    quick: str  # replaces options of ``load`` under --quick
    target: float | None  # least ratio to reach; for bytes the most bytes of ours
    unit: str = "jobs/s"  # or what the growth of the server's memory is divided by: "job", "connection"
    count: int = 0  # how many of these
    quick_count: int = 0
    base_load: str = ""  # given: our own server under this load is the other side
    one_core: bool = False  # server and load generator share a core; else they have what there is
    on_request: bool = False  # measured only when named

    @property
    def is_size(self) -> bool:
        """Whether the figure is bytes of memory, where less is better."""
        return self.unit != "jobs/s"

    def options(self, quick: bool, base: bool = False) -> list[str]:
        """The options for ``load``; a later option overrides an earlier one."""
        words = (self.base_load if base and self.base_load else self.load).split()
        return words + self.quick.split() if quick and not (base and self.base_load) else words

    def units(self, quick: bool) -> int:
        """How many jobs or connections the measured memory is for."""
        return self.quick_count if quick else self.count


def _foreground(size: str, target: float, bytes_: int, outstanding: int = 16) -> Workload:
    return Workload(
        f"foreground-{size}",
        f"foreground, 4 clients x {outstanding}, 16 workers, {size}",
        f"--clients 4 --outstanding {outstanding} --workers 16 --size {bytes_} {_WHOLE_TIME}",
        "--seconds 1",
        target,
    )


WORKLOADS = (
    _foreground("100B", 1.6, 100),
    Workload(
        "foreground-32x1",
        "foreground, 32 clients x 1, 32 workers, 100B",
        f"--clients 32 --outstanding 1 --workers 32 {_WHOLE_TIME}",
        "--seconds 1",
        1.3,
    ),
    Workload(
        "foreground-1x1",
        "foreground, 1 client x 1, 1 worker, two cores",
        f"--clients 1 --outstanding 1 --workers 1 {_WHOLE_TIME}",
        "--seconds 1",
        1.1,
    ),
    Workload(
        "one-core-1x1",
        "foreground, 1 client x 1, 1 worker, one core",
        f"--clients 1 --outstanding 1 --workers 1 {_WHOLE_TIME}",
        "--seconds 1",
        1.15,
        one_core=True,
    ),
    Workload(
        "background",
        "background end to end, 4 x 64, 16 workers, all at once",
        "--background --clients 4 --outstanding 64 --workers 16 --jobs 100000",
        "--jobs 50000",
        2.2,
    ),
    Workload(
        "background-steady",
        "background end to end, queue kept below 1,000",
        f"--background --clients 4 --outstanding 64 --workers 16 --backlog 1000 {_WHOLE_TIME}",
        "--seconds 1",
        None,
    ),
    Workload(
        "submit",
        "background submit, pipelined",
        f"--background {_PIPELINED} --jobs 1000000",
        "--jobs 300000",
        2.45,
    ),
    Workload(
        "uniques",
        "submit, 200,000 different uniques",
        f"--background --uniques {_PIPELINED} --jobs 200000",
        "",
        18.9,
    ),
    Workload(
        "drain",
        "drain of 20,000 by 16 workers",
        f"{_PIPELINED} --workers 16 --queued 20000 --rounds 8",
        "--rounds 3",
        1.4,
    ),
    Workload(
        "sleepers",
        "one job at a time, 1,000 sleeping workers",
        f"--clients 1 --outstanding 1 --workers 1000 {_WHOLE_TIME}",
        "--seconds 1",
        139,
    ),
    _foreground("4KiB", 1.1, 4 << 10),
    _foreground("64KiB", 1.15, 64 << 10),
    _foreground("1MiB", 1.1, 1 << 20, outstanding=4),
    Workload(
        "grabs",
        "grabs at 3,000,000 queued, to own at 1,000",
        f"{_PIPELINED} --workers 16 --queued 3000000 --grabs 500 --rounds 200",
        "--queued 300000",
        0.85,
        base_load=f"{_PIPELINED} --workers 16 --queued 1000 --grabs 500 --rounds 200",
    ),
    Workload(
        "queued-bytes",
        "memory a queued job of 100B, no unique",
        f"--background {_PIPELINED} --jobs 500000",
        "--jobs 100000",
        400,
        unit="job",
        count=500_000,
        quick_count=100_000,
    ),
    Workload(
        "worker-bytes",
        "memory a sleeping worker's connection",
        "--clients 0 --workers 10000",
        "--workers 2000",
        2500,
        unit="connection",
        count=10_000,
        quick_count=2_000,
    ),
    Workload(
        "silent-bytes",
        "memory a connection that said nothing",
        "--clients 0 --silent 10000",
        "--silent 2000",
        2500,
        unit="connection",
        count=10_000,
        quick_count=2_000,
    ),
    # For servers with a store (--ours-options, --theirs-options); what is acknowledged must be on the disk.
    Workload(
        "stored-submit",
        "submit with a unique each, 4 clients x 64, for stores",
        "--background --uniques --clients 4 --outstanding 64 --jobs 1000000 --seconds 3",
        "--seconds 1",
        None,
        on_request=True,
    ),
    Workload(
        "stored-drain",
        "drain of 5,000 with a unique each, for stores",
        "--uniques --clients 4 --outstanding 64 --workers 16 --queued 5000",
        "--queued 1000",
        None,
        on_request=True,
    ),
)
