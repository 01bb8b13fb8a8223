#!/usr/bin/env python3
"""Compares job servers under the same load, run by run in turn, and prints the ratio of each pair of runs.

Each run has a fresh server process. The program ``load`` (see load.c) plays the clients and workers, checks that
every job was done exactly once with its bytes intact, and stops at two moments, so that processor time and memory of
the server are read for the timed part alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from statistics import median

from measure import Bench, Result, number
from server import ServerFailed, find_program
from workloads import WORKLOADS

OPEN_FILES = 20_000
OURS = "{python} -m geartrain serve --listen 127.0.0.1 --port {port} --store memory:"
THEIRS = "{gearmand} -t 1 -L 127.0.0.1 -p {port} -b 4096 -l none -P {dir}/pid"


def _table(rows: list[list[str]], texts: int) -> str:
    """Rows under a heading; the first ``texts`` columns are set left, the others right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < texts else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def ratio_table(results: list[Result], theirs: str, ours: str) -> str:
    """One line per workload: the medians, the ratio of each pair, the target."""
    rows = [["workload", "", theirs, ours, "pairs", "median", "target", ""]]
    for result in results:
        workload = result.workload
        if not result.pairs:
            rows.append([workload.name, workload.title, "", "", "", "", "", "FAILED"])
            continue
        first, second = (number(median(pair[side].value for pair in result.pairs)) for side in (0, 1))
        pairs = " ".join(
            f"{ratio:.2f}{'~' if any(run.disturbed for run in pair) and not workload.is_size else ''}"
            for ratio, pair in zip(result.ratios(), result.pairs, strict=True)
        )
        target = "" if workload.target is None else f"{'<=' if workload.is_size else '>='} {workload.target:g}"
        unit = " B" if workload.is_size else ""
        middle = f"{median(result.ratios()):.2f}"
        base = " (own)" if workload.base_load else ""
        verdict = "FAILED" if result.failure else result.verdict()
        rows.append([workload.name, workload.title, first + unit + base, second + unit, pairs, middle, target, verdict])
    return _table(rows, 2)


def detail_table(results: list[Result]) -> str:
    """One line per workload and side: processor time and latencies, medians of the runs."""
    rows = [["workload", "server", "jobs/s", "jobs/cpu s", "server cpu", "load cpu", "others"]]
    rows[0] += ["p50 us", "p90", "p99", "max"]
    for result in results:
        if result.workload.is_size or not result.pairs:
            continue
        for side in (0, 1):
            runs = [pair[side] for pair in result.pairs]
            row = [result.workload.name, runs[0].server, number(median(run.value for run in runs))]
            speed = median(run.jobs_a_cpu_second for run in runs)
            row.append(number(speed) if speed else "")
            for used in ("server_cpu", "load_cpu", "others_cpu"):
                row.append(f"{median(getattr(run, used) / run.seconds for run in runs):.0%}")
            for name in ("p50", "p90", "p99", "max"):
                times = [run.latency_us[name] for run in runs if run.latency_us]
                row.append(f"{median(times):.0f}" if times else "")
            rows.append(row)
    return _table(rows, 2)


def _find_gearmand() -> str:
    # By its whole path first: Debian's Perl job server has a program of the same name in /usr/bin.
    usual = "/usr/sbin/gearmand"
    return usual if os.access(usual, os.X_OK) else shutil.which("gearmand") or usual


def _first_line(command: list[str]) -> str:
    try:
        command = [find_program(command[0]), *command[1:]]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=30, check=False)
    except ServerFailed as error:
        return str(error)
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return lines[0] if lines and done.returncode == 0 else "unknown"


def _servers(options: argparse.Namespace) -> dict[str, str]:
    """Theirs, then ours: name and command."""
    commands = {
        options.theirs_name: f"{options.theirs} {options.theirs_options}",
        options.ours_name: f"{options.ours} {options.ours_options}",
    }
    python, gearmand = shlex.quote(options.python), shlex.quote(options.gearmand)
    return {
        name: command.replace("{python}", python).replace("{gearmand}", gearmand).strip()
        for name, command in commands.items()
    }


def _circumstances(options: argparse.Namespace, servers: dict[str, str]) -> dict[str, str]:
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return {
        "machine": f"{os.cpu_count()} cores, {cpu}, {platform.system()} {platform.release()}",
        **servers,
        "gearmand version": _first_line([options.gearmand, "--version"]),
        "geartrain version": _first_line([options.python, "-m", "geartrain", "version"]),
    }


def _options() -> argparse.Namespace:
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--list", action="store_true", help="show the workloads and end")
    add("--only", nargs="+", metavar="NAME", help="measure these workloads alone")
    add("--pairs", type=int, default=3, help="pairs of runs for each workload (default: %(default)s)")
    add("--quick", action="store_true", help="less work in each run: for a look, not for a claim")
    add("--json", type=Path, metavar="FILE", help="write every run to FILE")
    add("--patience", type=float, default=20, metavar="SECONDS", help="wait so long before each run for the "
        "machine to be quiet, and measure a disturbed pair again; 0: never (default: %(default)s)")  # fmt: skip
    add("--python", default=sys.executable, metavar="PATH", help="interpreter whose geartrain is measured "
        "(default: this one)")  # fmt: skip
    add("--gearmand", default=_find_gearmand(), metavar="PATH", help="default: %(default)s")
    add("--ours", default=OURS, metavar="COMMAND", help="how ours is started (default: %(default)s)")
    add("--theirs", default=THEIRS, metavar="COMMAND", help="how theirs is started (default: %(default)s)")
    add("--ours-options", default="", metavar="OPTIONS", help="more options for ours; {dir} is an empty folder")
    add("--theirs-options", default="", metavar="OPTIONS", help="more options for theirs")
    add("--ours-name", default="geartrain", metavar="NAME", help="name in the tables")
    add("--theirs-name", default="gearmand", metavar="NAME", help="name in the tables")
    add("--load", type=Path, default=here.parent / "build" / "load", metavar="PATH", help="the load generator "
        "(default: %(default)s)")  # fmt: skip
    options = parser.parse_args()
    names = [workload.name for workload in WORKLOADS]
    unknown = [name for name in options.only or [] if name not in names]
    if unknown:
        parser.error(f"no workload is called {', '.join(unknown)}; there are: {', '.join(names)}")
    if options.pairs < 1:
        parser.error("--pairs takes a number from 1")
    if not options.list and not options.load.exists():
        parser.error(f"{options.load} is missing: run `make bench`, or: cc -O2 -o {options.load} {here}/*.c")
    return options


def main() -> int:
    options = _options()
    if options.list:
        for workload in WORKLOADS:
            print(f"{workload.name:18} {workload.title}{' (only when named)' if workload.on_request else ''}")
        return 0
    chosen = [w for w in WORKLOADS if (w.name in options.only if options.only else not w.on_request)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES:
        ceiling = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, ceiling), hard))

    servers = _servers(options)
    bench = Bench(servers, options.load, options.pairs, options.quick, options.patience)
    circumstances = _circumstances(options, servers)
    for name, value in circumstances.items():
        print(f"{name:18} {value}", flush=True)
    results = []
    for place, workload in enumerate(chosen, 1):
        results.append(bench.measure(workload, f"[{place}/{len(chosen)}]"))
        if results[-1].failure:
            print(f"FAILED: {results[-1].failure}", file=sys.stderr, flush=True)

    print(f"\n{ratio_table(results, options.theirs_name, options.ours_name)}\n\n{detail_table(results)}")
    if options.json:
        told = [
            {**asdict(result), "ratios": result.ratios(), "verdict": result.verdict() if result.pairs else "FAILED"}
            for result in results
        ]
        options.json.write_text(json.dumps({"circumstances": circumstances, "results": told}, indent=1) + "\n")
    return 1 if any(result.failure for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
