"""`fitspike plugins list` and `check`, beside good, faulty and broken plugins."""

import json

from fitspike.cli.main import run
from fitspike.plugin.kinds import EXTRA_TABLES, KINDS

GOOD = """
    from dataclasses import dataclass
    from fitspike.plugin import hookimpl

    @dataclass(frozen=True)
    class Nothing:
        name = "nothing"
        needs = frozenset({"chunk"})
        def __call__(self, context):
            return {"nothing": sum((value**2).sum() for value in context.params.values())}

    @hookimpl
    def fitspike_register_losses(register):
        register(Nothing, aliases=("void",))
"""
FAULTY = GOOD.replace('frozenset({"chunk"})', 'frozenset({"moon"})').replace('"nothing"', '"faulty"').replace("void", "faulty-too")


def rows(text):
    return [line.split() for line in text.splitlines() if line]


def test_check_prints_a_row_per_thing_and_every_failure(plugin_folder, capsys):
    plugin_folder.install("good", GOOD)
    plugin_folder.install("faulty", FAULTY)
    plugin_folder.install("gone", "import a_package_that_nobody_has")
    assert run(["plugins", "check", "good", "faulty", "gone"]) == 1
    out = capsys.readouterr().out
    table = {row[1]: row for row in rows(out) if row[0] in ("loss", "plugin")}
    assert table["good:nothing"][2] == "passed" and table["good:nothing"][4] == "0"
    assert table["faulty:faulty"][2] == "failed" and int(table["faulty:faulty"][4]) >= 1
    assert table["gone"][:3] == ["plugin", "gone", "failed"]
    assert "faulty:faulty: needs: " in out and "moon" in out
    assert "gone: importing fitspike_gone failed: ModuleNotFoundError" in out
    assert "2 checked, 1 failed" in out


def test_check_passes_by_plugin_name_registered_name_alias_and_qualified_name(plugin_folder, capsys):
    plugin_folder.install("good", GOOD)
    for name in ("good", "nothing", "void", "good:nothing"):
        assert run(["plugins", "check", name]) == 0
        assert "1 checked, 0 failed" in capsys.readouterr().out
    assert run(["plugins", "check", "good", "--kind", "statistic"]) == 0
    assert "registers nothing of that kind" in capsys.readouterr().out
    assert run(["plugins", "check", "nothign"]) == 1
    assert "did you mean 'nothing'?" in capsys.readouterr().err


def test_check_as_json(plugin_folder, capsys):
    plugin_folder.install("faulty", FAULTY)
    plugin_folder.install("gone", "import a_package_that_nobody_has")
    assert run(["plugins", "check", "faulty", "gone", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    (checked,) = found["checked"]
    assert checked["qualified_name"] == "faulty:faulty" and any("moon" in text for text in checked["failures"])
    assert list(found["broken_plugins"]) == ["gone"]


def test_list_shows_everything_registered_and_who_registered_it(plugin_folder, capsys):
    plugin_folder.install("good", GOOD)
    assert run(["plugins", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["registered"]) == {*KINDS, *EXTRA_TABLES}
    losses = {entry["qualified_name"]: entry for entry in found["registered"]["losses"]}
    assert losses["good:nothing"]["aliases"] == ["void"] and "fitspike:nll" in losses
    (good,) = (plugin for plugin in found["plugins"] if plugin["name"] == "good")
    assert (good["status"], good["version"], good["hooks"]) == ("loaded", "1.0", ["fitspike_register_losses"])
    assert run(["plugins", "list", "--kind", "loss"]) == 0
    table = rows(capsys.readouterr().out)
    assert ["losses", "nothing", "good", "also", "void"] in table and not any(row[0] == "models" for row in table)
    for kind in ("kernel", "command"):
        assert run(["plugins", "list", "--kind", kind]) == 0


def test_list_shows_tracebacks_when_asked(plugin_folder, capsys):
    plugin_folder.install("gone", "import a_package_that_nobody_has")
    assert run(["plugins", "list"]) == 0
    assert "Traceback" not in capsys.readouterr().out
    assert run(["plugins", "list", "--traceback"]) == 0
    assert 'fitspike_gone.py", line 1' in capsys.readouterr().out
