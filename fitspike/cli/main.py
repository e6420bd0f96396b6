"""`fitspike`: the group of all commands, and how errors become messages and exit statuses.

Exit status: 0 good, 1 user error (one message), 2 usage error, 3 interrupted with a checkpoint, 4 fit failed, 130 interrupted without one.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from fitspike import __version__
from fitspike.errors import FitFailed, FitspikeError, PluginError, did_you_mean

EXIT_USER_ERROR, EXIT_INTERRUPTED, EXIT_FIT_FAILED, EXIT_KILLED = 1, 3, 4, 130

COMMANDS: dict[str, tuple[str, str]] = {
    "inspect": ("fitspike.cli.cmd_inspect:inspect", "Show what a recording holds."),
    "fit": ("fitspike.cli.cmd_fit:fit", "Fit a model to a recording."),
    "score": ("fitspike.cli.cmd_score:score", "Score a fitted model on held-out data."),
    "compare": ("fitspike.cli.cmd_compare:compare", "Compare runs on the same held-out data."),
    "simulate": ("fitspike.cli.cmd_simulate:simulate", "Sample spikes from a fitted or configured model."),
    "connectivity": ("fitspike.cli.cmd_connectivity:connectivity", "Write the couplings of a fitted model; compare with a truth."),
    "plot": ("fitspike.cli.cmd_plot:plot", "Draw a run's figures and report from its saved numbers."),
    "datasets": ("fitspike.cli.cmd_datasets:datasets", "List, make and fetch datasets."),
    "plugins": ("fitspike.cli.cmd_plugins:plugins", "List, check and write plugins."),
    "config": ("fitspike.cli.cmd_config:config", "Show the configuration and where each value comes from."),
    "info": ("fitspike.cli.cmd_info:info", "Show versions, devices and kernel backends."),
}
"""Command name -> (module:attribute, help). The help stands here so that `--help` imports no command."""


class CommandGroup(click.Group):
    """The commands above, then those that plugins registered."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the built-in commands; those of plugins are listed by `fitspike plugins list`, which has to import them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, importing its module; a name that is not built in is looked up among the plugins' commands."""
        if cmd_name in COMMANDS:
            module, _, attribute = COMMANDS[cmd_name][0].partition(":")
            return _with_common_options(getattr(importlib.import_module(module), attribute))
        from fitspike.plugin.registry import get_registry

        if cmd_name not in get_registry().names("commands"):
            return None
        entry = get_registry().entry("commands", cmd_name)
        command = entry.load()
        if not isinstance(command, click.Command):
            raise PluginError(f"{entry.qualified_name!r} of {entry.origin} is no click command but a {type(command).__name__}.")
        return _with_common_options(command, entry.origin)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command to run; an unknown one is a usage error with a suggestion."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            from fitspike.plugin.registry import get_registry

            names = [*COMMANDS, *get_registry().names("commands")]
            ctx.fail(f"No such command {args[0]!r}{did_you_mean(args[0], names)} See `fitspike --help`.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in COMMANDS.items()])
        formatter.write_paragraph()
        formatter.write_text("Plugins may add commands: see `fitspike plugins list`.")


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fitspike")
def cli() -> None:
    """Fit spiking models to recorded spike trains.

    Results go to standard output (--json for machines), progress and messages to standard error.
    """


def _switch_plugins_off(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        from fitspike.plugin.registry import reset_registry

        before = os.environ.get("FITSPIKE_PLUGINS")
        os.environ["FITSPIKE_PLUGINS"] = "none"
        reset_registry()
        ctx.call_on_close(functools.partial(_restore_plugins, before))


def _restore_plugins(before: str | None) -> None:
    from fitspike.plugin.registry import reset_registry

    if before is None:
        os.environ.pop("FITSPIKE_PLUGINS", None)
    else:
        os.environ["FITSPIKE_PLUGINS"] = before
    reset_registry()


_COMMON_OPTIONS = (
    click.Option(
        ["--no-plugins"], is_flag=True, is_eager=True, expose_value=False, callback=_switch_plugins_off, help="Load built-ins only."
    ),
    click.Option(["--debug"], is_flag=True, is_eager=True, expose_value=False, help="Show tracebacks of errors."),
)
cli.params.extend(_COMMON_OPTIONS)


def _with_common_options(command: click.Command, origin: str | None = None) -> click.Command:
    """Give a command, and those below it, the common options; make it name broken plugins before it runs. Done once per command.

    `origin` says which plugin registered it; None for the commands of fitspike.
    """
    if _COMMON_OPTIONS[0] in command.params:
        return command
    command.params.extend(_COMMON_OPTIONS)
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _with_common_options(below, origin)
    elif command.callback is not None:
        command.callback = _naming_broken_plugins(command.callback, origin)
    return command


def _naming_broken_plugins(callback: Any, origin: str | None) -> Any:
    @functools.wraps(callback)
    def run(*args: Any, **kwargs: Any) -> Any:
        from fitspike.plugin.registry import get_registry

        get_registry().records()  # the manager logs each problem once
        try:
            return callback(*args, **kwargs)
        except (FitspikeError, OSError, click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            if origin is None:
                raise
            path = click.get_current_context().command_path.removeprefix("fitspike ")
            raise PluginError(f"{origin} failed while running {path}: {type(error).__name__}: {error}") from error

    return run


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    status = run(sys.argv[1:] if arguments is None else list(arguments))
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone (`| head`); without this the interpreter complains when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit status; errors become messages on standard error."""
    _log_to_stderr()
    wants_traceback = "--debug" in arguments
    try:
        outcome = cli.main(args=arguments, prog_name="fitspike", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return EXIT_KILLED
    except FitFailed as error:
        return _say(error, wants_traceback, EXIT_FIT_FAILED)
    except (FitspikeError, OSError) as error:
        return _say(error, wants_traceback, EXIT_USER_ERROR)
    except SystemExit as error:  # click exits by itself when the reader of standard output has gone
        return error.code if isinstance(error.code, int) else EXIT_USER_ERROR
    except Exception:  # noqa: BLE001 - the last line of defence, and it shows the traceback
        traceback.print_exc()
        click.echo("error: the traceback above is a bug in fitspike or in a plugin. Please report it with the command.", err=True)
        return EXIT_USER_ERROR


def _say(error: Exception, wants_traceback: bool, status: int) -> int:
    if wants_traceback:
        traceback.print_exception(error)
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and not isinstance(error, FitspikeError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}. Check the path, its permissions and the space left there."
    click.echo(f"error: {text}", err=True)
    return status


class _StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what standard error is at that moment; a command run in Python may have had another one than the next."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        """Return standard error."""
        return sys.stderr


def _log_to_stderr() -> None:
    """Send the package's warnings to standard error, one line each."""
    logger = logging.getLogger("fitspike")
    if not logger.handlers:
        handler = _StderrHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
