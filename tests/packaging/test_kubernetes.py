"""The manifest and the chart for Kubernetes: judged by Helm and by Kubernetes' own schemas, and the same to the letter.

What judges them is large, and in the extra "dev" alone; the interpreted tests have it.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from geartrain.daemon.config import Config
from geartrain.version import VERSION

FOLDER = Path(__file__).parents[2] / "packaging" / "kubernetes"
CHART = FOLDER / "geartrain"
# In a process of its own: Helm is a library in Go.
JUDGE = """
import json, sys, helm_python
with helm_python.Chart.load(sys.argv[1]) as chart:
    files = chart.render(json.loads(sys.argv[2]), name=sys.argv[3], namespace="default")
print(json.dumps({"findings": helm_python.lint(sys.argv[1]), "files": files}))
"""

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("helm_python") is None or importlib.util.find_spec("kubernetes_validate") is None,
    reason="needs the extra dev: pip install 'geartrain[dev]'",
)


def rendered(values: dict[str, Any], release: str = "geartrain") -> tuple[dict[str, Any], list[Any]]:
    """What Helm finds, and the objects that it makes of the chart."""
    command = [sys.executable, "-c", JUDGE, str(CHART), json.dumps(values), release]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return told["findings"], [each for text in told["files"].values() for each in yaml.safe_load_all(text) if each]


def by_name(objects: list[Any]) -> dict[tuple[str, str], Any]:
    found = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    assert len(found) == len(objects)
    return found


def plain() -> list[Any]:
    return list(yaml.safe_load_all((FOLDER / "geartrain.yaml").read_text()))


def judge(objects: list[Any]) -> None:
    import kubernetes_validate  # type: ignore[import-untyped]

    for each in objects:
        kubernetes_validate.validate(each, "1.33", strict=True)


def test_the_chart_is_sound_and_makes_the_manifest() -> None:
    findings, objects = rendered({})
    assert findings["errors"] == []
    assert [each["error"] for each in findings["messages"]] == ["icon is recommended"]
    judge(objects)
    assert by_name(objects) == by_name(plain())


def test_all_values_of_the_chart_are_heeded() -> None:
    values = {
        "replicas": 5,
        "fleet": "mill",
        "image": {"repository": "images.example/geartrain", "tag": "1.2", "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "pull"}],
        "store": {"secret": "other", "key": "place"},
        "http": {"port": 8081},
        "networkPolicy": {"enabled": False},
        "maxMemory": "4GiB",
        "env": [{"name": "GEARTRAIN_STORE_TIMEOUT", "value": "3"}],
        "podAnnotations": {"prometheus.io/scrape": "true"},
        "nodeSelector": {"disk": "any"},
        "tolerations": [{"key": "jobs", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
    }
    _, objects = rendered(values, "prod")
    judge(objects)
    found = by_name(objects)
    assert not any(kind == "NetworkPolicy" for kind, _ in found)
    members = found["StatefulSet", "prod-geartrain"]["spec"]
    pod = members["template"]["spec"]
    [container] = pod["containers"]
    assert (members["replicas"], members["serviceName"]) == (5, "prod-geartrain-members")
    assert ("Service", "prod-geartrain-members") in found
    assert (container["image"], container["imagePullPolicy"]) == ("images.example/geartrain:1.2", "Always")
    given = {each["name"]: each.get("value") or each["valueFrom"] for each in container["env"]}
    assert given["GEARTRAIN_FLEET"] == "mill"
    assert given["GEARTRAIN_ADVERTISE"] == "$(POD_NAME).prod-geartrain-members.$(POD_NAMESPACE).svc:4730"
    assert given["GEARTRAIN_HTTP"] == "0.0.0.0:8081"
    assert given["GEARTRAIN_MAX_MEMORY"] == "4GiB"
    assert given["GEARTRAIN_STORE"] == {"secretKeyRef": {"name": "other", "key": "place"}}
    assert given["GEARTRAIN_STORE_TIMEOUT"] == "3"
    for name in ("nodeSelector", "tolerations", "affinity", "imagePullSecrets"):
        assert pod[name] == values[name]


def test_the_manifest_names_options_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    [pod] = [each["spec"]["template"]["spec"] for each in plain() if each["kind"] == "StatefulSet"]
    [container] = pod["containers"]
    for each in container["env"]:
        if each["name"].startswith("GEARTRAIN_"):
            assert each["name"].removeprefix("GEARTRAIN_").lower() in Config.model_fields
            value = each.get("value", "postgresql://user@host/jobs").replace("$(POD_NAME)", "geartrain-0")
            monkeypatch.setenv(each["name"], value.replace("$(POD_NAMESPACE)", "default"))
    config = Config.model_validate({})
    assert (config.fleet, config.listen, config.http_open) == ("geartrain", ["*"], True)
    assert config.advertise == "geartrain-0.geartrain-members.default.svc:4730"
    assert container["image"] == f"geartrain:{VERSION}"
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)
