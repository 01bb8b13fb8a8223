"""The command `geartrain`."""

from __future__ import annotations

import click


@click.group()
def main() -> None:
    """A Gearman for today: job server, clients and workers."""


@main.command()
@click.option("--port", "-p", default=4730)
@click.option("--listen", "-L", multiple=True, default=["127.0.0.1"])
@click.option("--log-file", "-l", default="stderr")
@click.option("--job-handle-prefix", default="")
@click.option("--job-retries", default=0)
@click.option("--worker-wakeup", default=1)
@click.option("--verbose", default="INFO")
@click.pass_context
def serve(context: click.Context, listen: tuple[str, ...], **options: object) -> None:
    """Run a job server."""
    from geartrain.daemon.config import Config
    from geartrain.daemon.process import serve as run

    context.exit(run(Config(listen=list(listen), **options)))  # type: ignore[arg-type]
