"""Help by themes: a command's options in groups, each under its own title, in the order they were declared."""

from __future__ import annotations

from typing import Any

import click


class ThemedOption(click.Option):
    """An option that is listed under ``theme`` in its command's help."""

    def __init__(self, *arguments: Any, theme: str = "Options", **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.theme = theme

    def get_help_extra(self, ctx: click.Context) -> Any:
        """What click adds to the help: the default, but no ranges in the notation of mathematicians."""
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        return extra


class ThemedCommand(click.Command):
    """A command whose help lists the options theme by theme; those without a theme come last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        themes: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                themes.setdefault(getattr(parameter, "theme", "Options"), []).append(record)
        for theme, records in themes.items():
            with formatter.section(theme):
                formatter.write_dl(records)


class InOrder(click.Group):
    """A group that lists its commands as they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)
