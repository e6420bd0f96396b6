"""The pages written from the code name every command, every option, every error and every built-in component."""

import importlib.util
from pathlib import Path

import click
import pytest

from fitspike import errors
from fitspike.cli.main import COMMANDS, cli
from fitspike.plugin.registry import get_registry

DOCS = Path(__file__).parents[2] / "docs"


def tool(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / "_tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cli_page():
    return tool("command_pages").cli_page()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented(cli_page, name):
    command = cli.get_command(click.Context(cli, info_name="fitspike"), name)
    assert f"## fitspike {name}\n" in cli_page
    section = cli_page.partition(f"## fitspike {name}\n")[2].partition("\n## ")[0]
    for one in [command, *getattr(command, "commands", {}).values()]:
        for parameter in one.params:
            if isinstance(parameter, click.Option) and not parameter.hidden and parameter.opts[0] not in ("--debug", "--no-plugins"):
                assert parameter.help, f"{name} {parameter.opts[0]} has no help"
                assert parameter.opts[0] in section


def test_every_component_is_documented():
    page = tool("component_pages").page()
    for table in ("models", "neuron_models", "losses", "learning_rules", "statistics"):
        for entry in get_registry().entries(table):
            if entry.plugin == "fitspike":
                assert f"### {entry.name}\n" in page
    assert "### coupled-glm-network\n" in page and "burst_rate_hz" in page


def test_every_error_says_when_it_is_raised():
    for name, one in vars(errors).items():
        if isinstance(one, type) and issubclass(one, errors.FitspikeError):
            assert one.__doc__ and len(one.__doc__) > 30, f"{name} needs a docstring: the documentation lists it"
    assert "automodule:: fitspike.errors" in (DOCS / "python.md").read_text()


def test_every_page_is_in_a_table_of_contents():
    index = (DOCS / "index.md").read_text()
    for path in DOCS.glob("*.md"):
        if path.name != "index.md":
            assert f"\n{path.stem}\n" in index, f"{path.name} is in no toctree of index.md"
