"""Writes docs/cli.md from the click commands."""

from __future__ import annotations

import inspect
from pathlib import Path

import click

from fitspike.cli.main import COMMANDS, cli

CLI_HEAD = """# Command line

Results go to standard output, progress and messages to standard error. `--json` prints one JSON object. `--debug` shows tracebacks,
`--no-plugins` loads built-ins only; both go with every command.

| exit status | meaning |
| --- | --- |
| 0 | good |
| 1 | an error of input or data: one message says what was wrong, what was expected and what to do |
| 2 | wrong use of the command line |
| 3 | interrupted, with a checkpoint to resume from |
| 4 | the fit failed |
"""


def write_page(folder: Path) -> None:
    """Write cli.md into `folder` if it changed."""
    path, text = folder / "cli.md", cli_page()
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def cli_page() -> str:
    """Return the page of commands."""
    context = click.Context(cli, info_name="fitspike")
    parts = [CLI_HEAD]
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        parts.append(_section(command, click.Context(command, info_name=name, parent=context), level=2))
    return "\n".join(parts)


def _section(command: click.Command, context: click.Context, level: int) -> str:
    """Return one command's heading, text and options, and those of the commands below it."""
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    lines = [f"{'#' * level} {context.command_path}", "", f"```text\n{usage}\n```", "", inspect.cleandoc(command.help or ""), ""]
    rows = [record for parameter in command.get_params(context) if (record := parameter.get_help_record(context)) is not None]
    rows = [row for row in rows if not row[0].startswith(("--debug", "--no-plugins", "-h, --help", "--help", "--version"))]
    if rows:
        lines += ["| option | meaning |", "| --- | --- |", *(f"| `{_cell(option)}` | {_cell(text)} |" for option, text in rows), ""]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            lines.append(_section(below, click.Context(below, info_name=name, parent=context), level + 1))
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
