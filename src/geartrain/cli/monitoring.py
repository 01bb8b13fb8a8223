"""``geartrain monitoring``: the files for other programs that watch a job server."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

import click

from geartrain.cli.themes import ThemedCommand

FILES: Final = {"alerts": "alerts.yml", "grafana": "grafana.json"}


def _print(what: str) -> None:
    file = files("geartrain") / "web" / "monitoring" / FILES[what]
    click.echo(file.read_text("utf-8"), nl=False)


command = ThemedCommand(
    "monitoring",
    callback=_print,
    params=[click.Argument(["what"], type=click.Choice(list(FILES)))],
    help="""Print alert rules for Prometheus, or a dashboard for Grafana.

Both are for the metrics that a job server with --http has at /metrics.

\b
Examples:
  geartrain monitoring alerts > /etc/prometheus/geartrain.yml
  geartrain monitoring grafana > geartrain-dashboard.json
""",
)
