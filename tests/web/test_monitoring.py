"""The files for Prometheus and Grafana: judged by promtool, with the metrics that the job server has."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

import geartrain
from geartrain.web.families import FAMILIES
from servers import needs

FOLDER = Path(geartrain.__file__).parent / "web" / "monitoring"
ALERTS = FOLDER / "alerts.yml"
DASHBOARD = json.loads((FOLDER / "grafana.json").read_text())
NAMES = {family.sample for family in FAMILIES if family.kind != "histogram"} | {
    family.name + suffix
    for family in FAMILIES
    if family.kind == "histogram"
    for suffix in ("_bucket", "_count", "_sum")
}


def promtool(*arguments: str | Path, input: str | None = None, cwd: Path | None = None) -> str:
    """What promtool prints, which must be content."""
    command = [needs("promtool", "prometheus"), *map(str, arguments)]
    done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=60, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield re.sub(r"^label_values\((.*), \w+\)$", r"\1", variable["definition"])


def test_promtool_takes_the_rules() -> None:
    assert f"{len(rules())} rules found" in promtool("check", "rules", ALERTS)


def test_rules_and_dashboard_name_metrics_that_are_there() -> None:
    for expression in (*(rule["expr"] for rule in rules()), *expressions()):
        named = set(re.findall(r"\b(?:geartrain|process)_\w+", expression))
        assert named - {"geartrain"} <= NAMES, expression
        assert named or expression.startswith("up{"), expression


def test_the_page_tells_every_rule() -> None:
    page = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
    table = {name for row in re.findall(r"^\| (Geartrain[^|]*) \|", page, re.MULTILINE) for name in row.split(", ")}
    assert table == {rule["alert"] for rule in rules()}


def test_promtool_reads_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    variables = {"$__rate_interval": "5m", "$instance": ".*", "$function": ".*"}
    made = []
    for place, expression in enumerate(expressions()):
        for name, value in variables.items():
            expression = expression.replace(name, value)
        assert "$" not in expression
        made.append({"record": f"r{place}", "expr": expression})
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": made}]}))
    promtool("check", "rules", path)


def test_the_dashboard_is_one() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 20
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert DASHBOARD["uid"] == "geartrain"
    assert "id" not in DASHBOARD  # an import gives it one


LABELS = 'instance="js:8080", job="geartrain"'
OF_F = LABELS + ', function="f"'
NORMAL = OF_F + ', priority="normal"'


def alert(
    name: str, at: str, severity: str = "warning", *, function: bool = True, instance: bool = True, values: str = ""
) -> dict[str, Any]:
    """That one fires at a time, and with which texts; without ``values`` that it does not."""
    if not values:
        return {"alertname": name, "eval_time": at, "exp_alerts": []}
    labels = {
        "job": "geartrain",
        "severity": severity,
        **({"instance": "js:8080"} if instance else {}),
        **({"function": "f"} if function else {}),
    }
    annotations = next(rule["annotations"] for rule in rules() if rule["alert"] == name)
    texts = {
        key: re.sub(r"\{\{ \$(\w+)(?:\.(\w+))?[^}]*\}\}", lambda found: labels[found[2]] if found[2] else values, text)
        for key, text in annotations.items()
    }
    return {"alertname": name, "eval_time": at, "exp_alerts": [{"exp_labels": labels, "exp_annotations": texts}]}


CASES: list[tuple[dict[str, str], list[dict[str, Any]]]] = [
    (
        {f"up{{{LABELS}}}": "1 1 0x20"},
        [alert("GeartrainDown", "2m"), alert("GeartrainDown", "4m", "critical", function=False, values="0")],
    ),
    (
        {
            f"geartrain_jobs_waiting{{{NORMAL}}}": "0 3x20",
            f'geartrain_jobs_waiting{{{OF_F}, priority="high"}}': "0 1x20",
            f"geartrain_workers{{{OF_F}}}": "0x10 1x10",
            f"geartrain_paused{{{OF_F}}}": "0x20",
        },
        [
            alert("GeartrainJobsWithoutWorkers", "1m"),
            alert("GeartrainJobsWithoutWorkers", "3m", "critical", values="4"),
            alert("GeartrainJobsWithoutWorkers", "15m"),
        ],
    ),
    (
        {
            f"geartrain_jobs_waiting{{{NORMAL}}}": "3x20",
            f"geartrain_workers{{{OF_F}}}": "0x20",
            f"geartrain_paused{{{OF_F}}}": "1x80",
            f"geartrain_oldest_waiting_seconds{{{OF_F}}}": "900x80",
        },
        [
            alert("GeartrainJobsWithoutWorkers", "10m"),
            alert("GeartrainOldJobs", "10m"),
            alert("GeartrainPaused", "59m"),
            alert("GeartrainPaused", "61m", values="1"),
        ],
    ),
    (
        {f"geartrain_oldest_waiting_seconds{{{OF_F}}}": "540+60x20", f"geartrain_paused{{{OF_F}}}": "0x20"},
        [alert("GeartrainOldJobs", "6m"), alert("GeartrainOldJobs", "7m", values="16m 0s")],
    ),
    (
        {f"geartrain_jobs_waiting{{{NORMAL}}}": "0+10x90", f"geartrain_paused{{{OF_F}}}": "0x90"},
        [alert("GeartrainQueueGrows", "40m"), alert("GeartrainQueueGrows", "45m", values="450")],
    ),
    (
        {f"geartrain_jobs_waiting{{{NORMAL}}}": "900-5x90", f"geartrain_paused{{{OF_F}}}": "0x90"},
        [alert("GeartrainQueueGrows", "60m")],
    ),
    (
        {
            f"geartrain_jobs_failed_total{{{NORMAL}}}": "0+10x40",
            f"geartrain_jobs_completed_total{{{NORMAL}}}": "0+30x40",
        },
        [alert("GeartrainFailures", "5m"), alert("GeartrainFailures", "15m", values="25%")],
    ),
    (
        {f"geartrain_jobs_failed_total{{{NORMAL}}}": "7x40", f"geartrain_jobs_completed_total{{{NORMAL}}}": "9x40"},
        [alert("GeartrainFailures", "30m")],
    ),
    (
        {f"geartrain_dead_letters{{{OF_F}}}": "0 2x20"},
        [alert("GeartrainDeadLetters", "5m"), alert("GeartrainDeadLetters", "7m", values="2")],
    ),
    (
        {f"geartrain_jobs_refused_total{{{NORMAL}}}": "4x10 5x30"},
        [
            alert("GeartrainSubmissionsRefused", "9m"),
            alert("GeartrainSubmissionsRefused", "12m", values="1"),
            alert("GeartrainSubmissionsRefused", "20m"),
        ],
    ),
    (
        {f"geartrain_watchdog_breaches_total{{{NORMAL}}}": "0x10 1x30"},
        [alert("GeartrainWatchdog", "9m"), alert("GeartrainWatchdog", "12m", values="1")],
    ),
    (
        {f"geartrain_store_up{{{LABELS}}}": "1 0x20"},
        [alert("GeartrainStoreDown", "1m"), alert("GeartrainStoreDown", "3m", "critical", function=False, values="0")],
    ),
    (
        {f"geartrain_memory_bytes{{{LABELS}}}": "90x20", f"geartrain_memory_limit_bytes{{{LABELS}}}": "100x20"},
        [alert("GeartrainMemory", "4m"), alert("GeartrainMemory", "6m", function=False, values="90%")],
    ),
    (
        {f"geartrain_memory_bytes{{{LABELS}}}": "90x20"},  # no limit
        [alert("GeartrainMemory", "10m")],
    ),
    (
        {f"geartrain_connections{{{LABELS}}}": "90x20", f"geartrain_connections_limit{{{LABELS}}}": "100x20"},
        [alert("GeartrainConnections", "4m"), alert("GeartrainConnections", "6m", function=False, values="90%")],
    ),
    (
        {
            f'geartrain_loop_lag_seconds_bucket{{{LABELS}, le="0.25"}}': "0+1x30",
            f'geartrain_loop_lag_seconds_bucket{{{LABELS}, le="0.5"}}': "0+100x30",
            f'geartrain_loop_lag_seconds_bucket{{{LABELS}, le="+Inf"}}': "0+100x30",
        },
        [alert("GeartrainLoopLag", "4m"), alert("GeartrainLoopLag", "10m", function=False, values="497.5ms")],
    ),
    (
        {f'geartrain_fleet_state{{{LABELS}, state="live"}}': "1x5 0x5 1x20"},
        [
            alert("GeartrainLeaseLapsed", "5m"),
            alert("GeartrainLeaseLapsed", "8m", "critical", function=False, values="0"),
            alert("GeartrainLeaseLapsed", "12m"),
        ],
    ),
    (
        {f"geartrain_fleet_fenced_total{{{LABELS}}}": "0x10 1x30"},
        [alert("GeartrainFenced", "9m"), alert("GeartrainFenced", "12m", function=False, values="1")],
    ),
    (
        {
            f'geartrain_fleet_members{{{LABELS}, state="live"}}': "3x10 2x90",
            f'geartrain_fleet_members{{{LABELS}, state="dead"}}': "0x10 1x5 0x90",
        },
        [
            alert("GeartrainMemberGone", "13m"),
            alert("GeartrainMemberGone", "17m", function=False, instance=False, values="2"),
            alert("GeartrainMemberGone", "80m"),
            alert("GeartrainEstateLeft", "12m"),
            alert("GeartrainEstateLeft", "14m", "critical", function=False, instance=False, values="1"),
            alert("GeartrainEstateLeft", "20m"),
        ],
    ),
]
"""Series, a value a minute, and what is then told of an alert."""


def test_promtool_has_the_rules_fire(tmp_path: Path) -> None:
    told = {case["alertname"] for _, cases in CASES for case in cases if case["exp_alerts"]}
    assert told == {rule["alert"] for rule in rules()}
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "alert_rule_test": cases,
        }
        for series, cases in CASES
    ]
    path = tmp_path / "tests.yml"
    path.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
    promtool("test", "rules", path)


@pytest.mark.parametrize(("name", "path"), [("alerts", ALERTS), ("grafana", FOLDER / "grafana.json")])
def test_the_command_prints_the_files(name: str, path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "geartrain", "monitoring", name], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, path.read_bytes())
