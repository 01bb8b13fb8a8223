"""``GET /api/v1/configuration``: each option's value, where it comes from, and no secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from api_place import Api, tokens_file

from geartrain.daemon.config import Config
from servers import running_geartrain
from wire_caller import Caller

pytest.importorskip("fastapi")

from geartrain.web.access import digest_of
from geartrain.web.api.configuration import option_of

SECRETS = ("hunter22secret", "signed-with-this", "token-of-chief")


def test_each_value_is_told_with_where_it_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "geartrain.toml"
    file.write_text(
        f'backlog = 77\njob-retries = 4\nmax_packet = "2MiB"\nwebhook_secret = "{SECRETS[1]}"\n'
        + tokens_file({"chief": ["operate", "read"]})
        + '[policies.mail]\nattempts = 3\n[schedules.nightly]\ncron = "30 2 * * *"\nfunction = "report"\n'
    )
    gearmands = tmp_path / "gearmand.conf"
    gearmands.write_text("--worker-wakeup=3\n")
    environment = {"GEARTRAIN_BACKLOG": "88", "GEARTRAIN_FORGET_AFTER": "90s", "GEARMAND_PORT": "7"}
    with running_geartrain(
        "--http=127.0.0.1:0", f"--config={file}", f"--config-file={gearmands}", "--exceptions", environment=environment
    ) as server:
        api = Api(server.http_port, "token-of-chief")
        told = {option["key"]: option for option in api.get("/configuration")["options"]}
        text = str(told)

    def is_told(key: str, value: str, source: str, where: str) -> None:
        assert (told[key]["value"], told[key]["source"], told[key]["where"]) == (value, source, where)

    is_told("backlog", "88", "environment", "GEARTRAIN_BACKLOG")
    is_told("forget_after", "90s", "environment", "GEARTRAIN_FORGET_AFTER")
    is_told("job_retries", "4", "file", f"job_retries in {file}")
    is_told("max_packet", "2MiB", "file", f"max_packet in {file}")
    is_told("worker_wakeup", "3", "file", f"--worker-wakeup (line 1 of {gearmands})")
    is_told("port", str(server.port), "flag", "--port")
    is_told("exceptions", "true", "flag", "--exceptions")
    is_told("store", "memory", "flag", "--store")
    is_told("max_line", "8192", "default", "")
    is_told("keepalive", "true", "default", "")
    is_told("packet_timeout", "60s", "default", "")
    is_told("socket_mode", "600", "default", "")
    is_told("job_handle_prefix", "H:<name of this machine>", "default", "")
    is_told("http_certificate", "", "default", "")
    is_told("webhook_secret", "***", "file", f"webhook_secret in {file}")
    is_told("policies", "mail", "file", f"[policies] in {file}")
    is_told("schedules", "nightly", "file", f"[schedules] in {file}")
    is_told("tokens", "chief", "file", f"[tokens] in {file}")
    assert told["listen"]["theme"] == "Listening"
    assert set(told) == set(Config.model_fields)
    assert all(option["meaning"] and option["theme"] for option in told.values())
    assert digest_of(SECRETS[2]) not in text
    assert not [secret for secret in SECRETS if secret in text]


def test_a_stores_password_is_not_told(tmp_path: Path) -> None:
    folder = tmp_path / SECRETS[0]
    folder.mkdir()
    store = f"sqlite:///{folder}/jobs.sqlite?password={SECRETS[0]}"
    with running_geartrain("--http=127.0.0.1:0", store=f"sqlite:///{tmp_path}/jobs.sqlite") as server:
        told: Any = Api(server.http_port).get("/configuration")
    assert [option["value"] for option in told["options"] if option["key"] == "store"] == [
        f"sqlite:///{tmp_path}/jobs.sqlite"
    ]
    config = Config.load({"store": store.replace("sqlite:///", f"postgresql://me:{SECRETS[0]}@host")})
    assert SECRETS[0] not in option_of(config, "store").value
    assert option_of(config, "store").value.startswith("postgresql://me:***@host")


@pytest.mark.parametrize(("roles", "status"), [(["read"], 200), (["operate"], 200), (["submit"], 403)])
def test_who_may_see_it(tmp_path: Path, roles: list[str], status: int) -> None:
    file = tmp_path / "geartrain.toml"
    file.write_text(tokens_file({"somebody": roles}))
    with running_geartrain("--http=127.0.0.1:0", f"--config={file}") as server, Caller(server):
        assert Api(server.http_port, "token-of-somebody").ask("GET", "/configuration").status == status
