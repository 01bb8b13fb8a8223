"""The text for Prometheus, read by prometheus-client's own parsers."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_plain

from geartrain.web.exposition import OPENMETRICS, PLAIN, Exposition, histogram, labels, line, media_type
from geartrain.web.families import BUILD, COUNTERS, FAMILIES, GAUGES, HISTOGRAMS

EVIL = 'a"b\\c\nd{}=,é\u2028'


def sample() -> Exposition:
    made = Exposition()
    made.add(BUILD, [line(BUILD, 1, labels(version="1.0", core="compiled"))])
    labelled = labels(function=EVIL, priority="high")
    made.add(COUNTERS["submitted"], [line(COUNTERS["submitted"], 3, labelled)])
    made.add(COUNTERS["submitted"], [line(COUNTERS["submitted"], 10**15, labels(function="b", priority="low"))])
    made.add(GAUGES["oldest_waiting"], [line(GAUGES["oldest_waiting"], 1e-05, labels(function=EVIL))])
    times = HISTOGRAMS["waiting"]
    made.add(times, histogram(times.name, ["0.5", "1.0"], [2, 0, 1], 7.25, labelled))
    return made


@pytest.mark.parametrize(("form", "read"), [(PLAIN, read_plain), (OPENMETRICS, read_openmetrics)])
def test_both_forms_say_the_same(form: str, read: object) -> None:
    text = b"".join(sample().pieces(form)).decode()
    families = {family.name: family for family in read(text)}  # type: ignore[operator]
    samples = {
        (each.name, *sorted(each.labels.values())): each.value
        for family in families.values()
        for each in family.samples
    }
    assert samples == {
        ("geartrain_build_info", "1.0", "compiled"): 1,
        ("geartrain_jobs_submitted_total", EVIL, "high"): 3,
        ("geartrain_jobs_submitted_total", "b", "low"): 10**15,
        ("geartrain_oldest_waiting_seconds", EVIL): 1e-05,
        ("geartrain_job_waiting_seconds_bucket", "0.5", EVIL, "high"): 2,
        ("geartrain_job_waiting_seconds_bucket", "1.0", EVIL, "high"): 2,
        ("geartrain_job_waiting_seconds_bucket", "+Inf", EVIL, "high"): 3,
        ("geartrain_job_waiting_seconds_count", EVIL, "high"): 3,
        ("geartrain_job_waiting_seconds_sum", EVIL, "high"): 7.25,
    }
    assert families["geartrain_job_waiting_seconds"].type == "histogram"
    assert families["geartrain_jobs_submitted"].type == "counter"
    assert families["geartrain_oldest_waiting_seconds"].type == "gauge"
    assert text.endswith("# EOF\n") == (form == OPENMETRICS)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", PLAIN),
        ("*/*", PLAIN),
        ("text/html,application/xhtml+xml,*/*;q=0.8", PLAIN),
        ("application/openmetrics-text", OPENMETRICS),
        ("Application/OpenMetrics-Text; version=1.0.0; charset=utf-8", OPENMETRICS),
        # Prometheus 2.42, and 3
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            OPENMETRICS,
        ),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;"
            "version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,"
            "*/*;q=0.1",
            OPENMETRICS,
        ),
        ("application/openmetrics-text;q=0, text/plain", PLAIN),
        ("application/openmetrics-text;q=0", PLAIN),
        ("application/openmetrics-text;q=0.2, text/plain;q=0.9", PLAIN),
        ("application/openmetrics-text;q=x, text/plain", PLAIN),
        (";;;,,,", PLAIN),
    ],
)
def test_the_form_is_the_one_that_is_wanted_most(accept: str, form: str) -> None:
    assert media_type(accept) == form


def test_names_are_those_that_the_rules_of_prometheus_ask_for() -> None:
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)
    for family in FAMILIES:
        assert family.name.startswith(("geartrain_", "process_"))
        assert not family.name.endswith(("_total", "_info", "_bucket", "_count", "_sum", "_created"))
        assert family.help.endswith(".")
        assert "\\" not in family.help
        assert "\n" not in family.help
