"""A real Prometheus scrapes a real job server, and has the alert rules of the package fire."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from http_client import Http
from test_monitoring import ALERTS

pytest.importorskip("httptools")

from daemon_peer import DaemonPeer
from geartrain.wire.packets import CAN_DO, SUBMIT_JOB_BG, pack_request
from servers import needs, running_geartrain, wait_until
from services import Service, running

PATIENCE = 30.0  # it looks each half second, and its rules have to be true for one


class Prometheus(Service):
    """Scrapes the job server whose HTTP port is its first option, and evaluates the alert rules, twice a second."""

    runs_as = "prometheus"

    def prepare(self) -> None:
        needs("prometheus", "prometheus")
        rules = self.folder / "alerts.yml"
        rules.write_text(re.sub(r"for: \w+", "for: 1s", ALERTS.read_text()))
        config = self.folder / "prometheus.yml"
        config.write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
                    "rule_files": [str(rules)],
                    "scrape_configs": [
                        {"job_name": "geartrain", "static_configs": [{"targets": [f"127.0.0.1:{self.options[0]}"]}]}
                    ],
                }
            )
        )
        for path in (rules, config):
            self.give(path)

    def command(self) -> list[str]:
        return [needs("prometheus", "prometheus"), f"--config.file={self.folder}/prometheus.yml",
                f"--storage.tsdb.path={self.folder}/data", f"--web.listen-address=127.0.0.1:{self.port}",
                "--log.level=warn"]  # fmt: skip

    def greets(self) -> bool:
        return Http(self.port).ask("GET", "/-/ready").status == 200

    def url(self, namespace: str = "geartrain") -> str:
        raise NotImplementedError  # it is no store

    def ask(self, path: str) -> Any:
        answer = Http(self.port).ask("GET", f"/api/v1/{path}")
        assert answer.status == 200, answer.body
        return answer.json["data"]

    def value(self, query: str) -> float | None:
        """The value of the one series that a query gives; None if there is none yet."""
        found = self.ask(f"query?query={quote(query)}")["result"]
        return float(found[0]["value"][1]) if len(found) == 1 else None

    def firing(self) -> set[tuple[str, str]]:
        """Alerts that fire, with their functions."""
        return {
            (alert["labels"]["alertname"], alert["labels"].get("function", ""))
            for alert in self.ask("alerts")["alerts"]
            if alert["state"] == "firing"
        }


def test_a_function_with_jobs_and_no_worker_is_alerted(tmp_path: Path) -> None:
    alert = ("GeartrainJobsWithoutWorkers", "resize")
    with (
        running_geartrain("--http=127.0.0.1:0", store=f"sqlite:///{tmp_path}/queue.sqlite") as server,
        running(Prometheus, str(server.http_port)) as prometheus,
        DaemonPeer(server.port) as peer,
    ):
        wait_until(lambda: prometheus.value('up{job="geartrain"}') == 1, "it is scraped", PATIENCE)
        (target,) = prometheus.ask("targets")["activeTargets"]
        assert (target["health"], target["lastError"]) == ("up", "")
        assert prometheus.firing() == set()
        peer.send(pack_request(SUBMIT_JOB_BG, b"resize", b"", b"x") * 2)
        wait_until(lambda: alert in prometheus.firing(), "the alert fires", PATIENCE)
        (told,) = [each for each in prometheus.ask("alerts")["alerts"] if each["labels"]["alertname"] == alert[0]]
        assert told["annotations"]["summary"] == "2 jobs of resize wait, and no worker can do them."
        assert told["labels"]["severity"] == "critical"
        assert prometheus.value("sum(geartrain_jobs_submitted_total)") == 2
        assert prometheus.value("geartrain_store_up") == 1
        metadata = prometheus.ask("targets/metadata?metric=geartrain_jobs_submitted")
        assert [each["type"] for each in metadata] == ["counter"]  # by this name in OpenMetrics alone
        peer.send(pack_request(CAN_DO, b"resize"))
        wait_until(lambda: alert not in prometheus.firing(), "the alert is over", PATIENCE)
        server.process.terminate()
        wait_until(lambda: ("GeartrainDown", "") in prometheus.firing(), "its end is seen", PATIENCE)
