"""What plugins can do wrong besides failing to load: in their installation, their names, at first use, after they have gone."""

import json
import shutil

import numpy as np
import pytest
import torch  # noqa: F401 - before any botched installation is on the path: torch reads all entry points when it is imported

import fitspike
from fitspike.cli.main import run
from fitspike.errors import AmbiguousNameError, PluginError
from fitspike.kernels import dispatch
from fitspike.recording.recording import Recording
from fitspike.results.components import reference_to
from fitspike.results.result import FitResult

NEURON = """
    from dataclasses import dataclass
    import torch
    from fitspike.plugin import Citation, ParamSpec, hookimpl

    @dataclass(frozen=True)
    class Constant:
        name = "{name}"
        citation = Citation("Nobody 2000")
        start: float = -3.0
        def param_specs(self, n_neurons):
            return {{"bias": ParamSpec((n_neurons,), unit="1", init=self.start)}}
        def init_state(self, params, n_trials):
            return params["bias"].new_zeros(n_trials, 1)
        def step(self, params, state, current, spikes, dt_ms):
            return state, params["bias"] + current

    @hookimpl
    def fitspike_register_neuron_models(register):
        register(Constant, aliases={aliases})
"""
BY_ITSELF = """
        def params_for_count(self, expected, emission, dt_ms):
            return {"bias": emission.drive_for(expected, dt_ms).numpy()}
"""
SHORT = ["--progress", "off", "--threads", "1", "--set", "stop.max_steps=2", "--set", "simulation.max_seconds=1"]
SHORT += ["--set", "score.n_bootstrap=20", "--set", "score.co_smoothing_bins=0"]


def neuron_that_starts_by_itself(name):
    """Return the source of a neuron that is not driven before the fit to find where it starts."""
    return NEURON.format(name=name, aliases=()).replace("\n\n    @hookimpl", f"\n{BY_ITSELF.lstrip(chr(10))}\n    @hookimpl", 1)


@pytest.fixture
def session(tmp_path):
    """Return the path of a small recording."""
    counts = (np.random.default_rng(0).random((6, 100, 2)) < 0.2).astype(int)
    return str(Recording.from_counts(counts, dt_ms=10.0).save(tmp_path / "session.fitspike"))


# -- installation -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "entry_points"),
    [
        ("Name: fitspike-odd\nVersion: 1.0\n", "[fitspike]\nthis line has no equals sign\n"),
        ("Name: fitspike-odd\nVersion: 1.0\n", "[fitspike]\nodd = not a module at all[\n"),
        ("Name: fitspike-odd\nVersion: 1.0\n", "[fitspike]\nodd = \n"),
        ("Name: fitspike-odd\n", "[fitspike]\nodd = fitspike_odd\n"),
        (None, "[fitspike]\nodd = fitspike_odd\n"),
    ],
    ids=["no-equals", "no-module", "no-target", "no-version", "no-metadata"],
)
def test_a_botched_installation_is_named_and_harms_no_other_plugin(plugin_folder, registry_of, metadata, entry_points):
    plugin_folder.install("good", NEURON.format(name="good-neuron", aliases=()))
    info = plugin_folder.path / "fitspike_odd-1.0.dist-info"
    info.mkdir()
    listener = "from fitspike.plugin import hookimpl\n@hookimpl\ndef fitspike_fit_start(run): ...\n"
    (plugin_folder.path / "fitspike_odd.py").write_text(listener, encoding="utf-8")
    if metadata is not None:
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\n{metadata}", encoding="utf-8")
    (info / "entry_points.txt").write_text(entry_points, encoding="utf-8")
    registry = registry_of()
    records = {record.name: record for record in registry.records()}
    assert records["good"].status == "loaded" and registry.get("neuron_models", "good-neuron").name == "good-neuron"
    (odd,) = (record for name, record in records.items() if "odd" in name)
    assert (odd.status == "loaded") == ("fitspike_odd" in entry_points)
    if "equals" in entry_points:
        assert odd.name == "fitspike_odd-1.0.dist-info" and "its installation cannot be read" in odd.error


def test_a_hook_without_its_mark_and_a_module_without_hooks_are_told(plugin_folder, registry_of):
    plugin_folder.install("unmarked", "def fitspike_register_models(register): ...")
    plugin_folder.install("empty", "")
    plugin_folder.install("optional", "import pluggy\n@pluggy.HookimplMarker('fitspike')(optionalhook=True)\ndef fitspike_later(): ...")
    records = {record.name: record for record in registry_of().records()}
    assert "fitspike_register_models is not marked as a hook. Put @hookimpl before it." in records["unmarked"].error
    assert records["empty"].status == "failed" and "it implements no hook" in records["empty"].error
    assert records["optional"].status == "loaded", "a hook that only later versions know, marked as optional"


def test_an_object_whose_attributes_raise_is_a_failed_plugin(plugin_folder, registry_of):
    source = """
        class Trap:
            def __dir__(self):
                raise RuntimeError("do not look")
        trap = Trap()
    """
    plugin_folder.install("trap", source, entry="fitspike_trap:trap")
    record = {record.name: record for record in registry_of().records()}["trap"]
    assert record.status == "failed" and "do not look" in record.error


def test_a_plugin_may_use_fitspike_while_it_is_imported(plugin_folder, registry_of, session):
    source = NEURON.format(name="eager-neuron", aliases=()) + f"    import fitspike\n    N_SPIKES = fitspike.load({session!r}).n_spikes\n"
    plugin_folder.install("a-first", "import fitspike\nfitspike.load('/nowhere/at/all.txt')")
    plugin_folder.install("eager", source)
    reader = """
    class Late:
        name = "late-reader"
    @hookimpl
    def fitspike_register_readers(register):
        register(Late)
"""
    plugin_folder.install("z-last", NEURON.format(name="z-neuron", aliases=()) + reader)
    registry = registry_of()
    records = {record.name: record for record in registry.records()}
    assert "no such file or folder" in records["a-first"].error
    assert (records["eager"].status, records["z-last"].status) == ("loaded", "loaded")
    assert {"eager-neuron", "z-neuron"} <= set(registry.names("neuron_models"))
    assert "late-reader" in registry.names("readers"), "what the eager plugin asked for was asked for too early"


# -- names --------------------------------------------------------------------------------------------------------------------------


def test_one_name_registered_twice_by_one_plugin_is_refused(plugin_folder, registry_of):
    source = NEURON.format(name="twice", aliases=()) + "        register(Constant)\n"
    plugin_folder.install("double", source)
    registry = registry_of()
    assert "registers 'twice' twice" in {record.name: record for record in registry.records()}["double"].error
    assert "twice" not in registry.names("neuron_models")


@pytest.mark.parametrize("other", [("shared", ()), ("its-own", ("shared",))], ids=["name", "alias"])
def test_an_alias_that_another_plugin_uses_is_ambiguous(plugin_folder, registry_of, other):
    plugin_folder.install("first", NEURON.format(name="first-neuron", aliases=("shared",)))
    plugin_folder.install("second", NEURON.format(name=other[0], aliases=other[1]))
    registry = registry_of()
    with pytest.raises(AmbiguousNameError, match=f"first:first-neuron, second:{other[0]}"):
        registry.entry("neuron_models", "shared")
    assert registry.entry("neuron_models", "first:shared").name == "first-neuron"
    assert registry.entry("neuron_models", "second:shared").name == other[0]


def test_an_alias_never_takes_a_built_in_name(plugin_folder, registry_of):
    plugin_folder.install("greedy", NEURON.format(name="greedy-neuron", aliases=("lif", "srm")))
    assert registry_of().entry("neuron_models", "lif").qualified_name == "fitspike:lif"


# -- first use ----------------------------------------------------------------------------------------------------------------------


def test_something_incomplete_does_not_disturb_a_fit_that_does_not_use_it(plugin_folder, registry_of, session):
    plugin_folder.install("a-first", "from fitspike.plugin import hookimpl\n" + INCOMPLETE.format(table="neuron_models"))
    plugin_folder.install("models", "from fitspike.plugin import hookimpl\n" + INCOMPLETE.format(table="models"))
    plugin_folder.install("rules", "from fitspike.plugin import hookimpl\n" + INCOMPLETE.format(table="learning_rules"))
    plugin_folder.install("z-last", NEURON.format(name="z-neuron", aliases=()))
    neuron = registry_of().create("neuron_models", "z-neuron")
    assert reference_to(neuron, "neuron_models").qualified_name == "z-last:z-neuron"
    options = {"report": False, "threads": 1, "progress": "off", "stop": {"max_steps": 1}, "simulation": {"max_seconds": 1.0}}
    assert fitspike.fit(session, "spiking-network", neuron=neuron, **options).status.name == "STEP_LIMIT"
    with pytest.raises(PluginError, match=r"'a-first:incomplete' of plugin 'a-first' \(fitspike-a-first 1.0\) is no neuron model"):
        registry_of().create("neuron_models", "incomplete")


INCOMPLETE = """
class Incomplete:
    name = "incomplete"
@hookimpl
def fitspike_register_{table}(register):
    register(Incomplete)
"""

DATASETS = """
    from dataclasses import dataclass
    from fitspike.plugin import hookimpl

    class Moody:
        name = "moody"
        def describe(self):
            raise KeyError("no card today")
        def load(self, cache, *, item=None, seed=0): ...
        def truth(self, *, seed=0): ...

    @hookimpl
    def fitspike_register_datasets(register):
        register(Moody)
        register("fitspike_nowhere_at_all:Gone", name="gone")
"""


def test_datasets_that_fail_are_named_and_the_others_listed(plugin_folder, capsys):
    plugin_folder.install("moods", DATASETS)
    assert run(["datasets", "list", "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert "coupled-glm-network" in {one["name"] for one in found["datasets"]}
    assert set(found["failed"]) == {"moods:moody", "moods:gone"}
    assert "plugin 'moods' (fitspike-moods 1.0)" in captured.err and "no card today" in captured.err
    assert run(["datasets", "list"]) == 0
    assert "coupled-glm-network" in capsys.readouterr().out
    for arguments in (["card", "moody"], ["get", "moody/item"], ["make", "moody", "--out", str(plugin_folder.path / "made")]):
        assert run(["datasets", *arguments]) == 1
        error = capsys.readouterr().err
        assert "error: plugin 'moods' (fitspike-moods 1.0) failed while" in error and "Traceback" not in error, arguments


def test_a_reader_that_raises_in_can_read_does_not_keep_others_from_reading(plugin_folder, registry_of, tmp_path):
    plugin_folder.install(
        "touchy",
        """
        from fitspike.plugin import hookimpl
        class Touchy:
            name = "touchy"
            extensions = (".fitspike",)
            def can_read(self, path):
                raise RuntimeError("not this one")
            def read(self, path, **options): ...
        @hookimpl
        def fitspike_register_readers(register):
            register(Touchy)
        """,
    )
    registry_of()
    path = tmp_path / "odd.touchy"
    path.write_text("nothing", encoding="utf-8")
    with pytest.raises(fitspike.plugin.ReadError, match=r"plugin 'touchy' \(fitspike-touchy 1.0\) failed: RuntimeError: not this one"):
        fitspike.load(path)
    (tmp_path / "times.txt").write_text("0.1 0\n0.2 1\n", encoding="utf-8")
    assert fitspike.load(tmp_path / "times.txt", times="0", neurons="1", unit="s").n_spikes == 2


def test_a_command_that_raises_is_blamed_on_its_plugin(plugin_folder, capsys):
    plugin_folder.install(
        "commands",
        """
        import click
        from fitspike.plugin import hookimpl
        @click.group()
        def team(): ...
        @team.command()
        @click.option("--refuse", is_flag=True)
        def work(refuse):
            if refuse:
                raise click.UsageError("no work today")
            raise ZeroDivisionError("nothing to divide")
        @click.command()
        def fine():
            click.echo("done")
        @hookimpl
        def fitspike_register_commands(register):
            register("team", team, "Work in a team.")
            register("fine", fine, "Be fine.")
            register("no-command", 3, "Be a number.")
            register("fit", fine, "Take over.")
        """,
    )
    assert run(["fine"]) == 0 and "done" in capsys.readouterr().out
    assert run(["team", "work"]) == 1
    error = capsys.readouterr().err
    assert "plugin 'commands' (fitspike-commands 1.0) failed while running team work: ZeroDivisionError: nothing to divide" in error
    assert "Traceback" not in error
    assert run(["team", "work", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert run(["team", "work", "--refuse"]) == 2
    assert "no work today" in capsys.readouterr().err
    assert run(["no-command"]) == 1
    assert "'commands:no-command' of plugin 'commands' (fitspike-commands 1.0) is no click command" in capsys.readouterr().err
    assert run(["fit", "--help"]) == 0, "a built-in command stays what it is"
    assert "--model" in capsys.readouterr().out


KERNELS = """
    from fitspike.plugin import hookimpl
    def supports(**facts):
        raise RuntimeError("cannot say")
    @hookimpl
    def fitspike_register_kernels(register):
        register("densify", "test-moody", print, supports=supports, priority=99)
        register("densify", "test-gone", "fitspike_nowhere_at_all:densify", priority=98)
"""


def test_kernels_that_fail_are_passed_over_with_the_reason(plugin_folder, registry_of):
    plugin_folder.install("kernels", KERNELS)
    try:
        registry_of().records()
        assert dispatch.choose("densify").backend == "numba"
        reasons = {row.backend: row.reason for row in dispatch.explain("densify")}
        assert "plugin 'kernels' (fitspike-kernels 1.0)" in reasons["test-moody"] and "cannot say" in reasons["test-moody"]
        assert "plugin 'kernels' (fitspike-kernels 1.0)" in reasons["test-gone"] and "fitspike_nowhere_at_all" in reasons["test-gone"]
    finally:
        for backend in ("test-moody", "test-gone"):
            dispatch._TABLE["densify"].pop(backend, None)


@pytest.mark.parametrize(
    ("fault", "told", "found"),
    [
        ("raise ZeroDivisionError('no current today')", "ZeroDivisionError: no current today", "raised ZeroDivisionError"),
        ("raise SystemExit(0)", "SystemExit: 0", "raised SystemExit"),
        ("return state", "ValueError", "step must return (state, drive)"),
    ],
    ids=["raises", "exits", "returns too little"],
)
def test_a_neuron_that_fails_in_the_middle_of_a_fit_is_blamed(plugin_folder, registry_of, session, tmp_path, capsys, fault, told, found):
    source = neuron_that_starts_by_itself("faulty-neuron").replace('return state, params["bias"] + current', fault)
    plugin_folder.install("faulty", source)
    registry_of()
    assert run(["fit", session, "--neuron", "faulty-neuron", *SHORT, "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert "plugin 'faulty' (fitspike-faulty 1.0) failed while" in error and told in error and "Traceback" not in error
    assert json.loads((tmp_path / "run" / "status.json").read_text(encoding="utf-8"))["state"] == "failed"
    assert run(["plugins", "check", "faulty"]) == 1
    assert found in capsys.readouterr().out


@pytest.mark.parametrize("fault", ["raise RuntimeError('no current today')", "raise SystemExit(0)", "return state"])
def test_a_neuron_that_cannot_be_driven_is_blamed_before_the_fit(plugin_folder, registry_of, session, tmp_path, capsys, fault):
    source = NEURON.format(name="faulty-neuron", aliases=()).replace('return state, params["bias"] + current', fault)
    plugin_folder.install("faulty", source)
    registry_of()
    assert run(["fit", session, "--neuron", "faulty-neuron", *SHORT, "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert "plugin 'faulty' (fitspike-faulty 1.0) failed while finding where its parameters start" in error and "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_a_listener_hears_start_steps_and_how_the_fit_ended(plugin_folder, registry_of, session, tmp_path):
    plugin_folder.install(
        "listener",
        """
        from fitspike.plugin import hookimpl
        heard = []
        @hookimpl
        def fitspike_fit_start(run):
            heard.append(("start", run.model, run.n_neurons, run.run_dir))
        @hookimpl
        def fitspike_fit_step(step, metrics):
            heard.append(("step", step, {type(value) for value in metrics.values()}))
        @hookimpl
        def fitspike_fit_end(run, result):
            heard.append(("end", type(result).__name__, (run.run_dir / "params.npz").exists()))
        """,
    )
    plugin_folder.install("faulty", neuron_that_starts_by_itself("faulty-neuron").replace("return state, ", "raise KeyError; "))
    registry_of()
    assert (
        run(
            ["fit", session, "--model", "spiking-network", *SHORT, "--set", "stop.log_every=1", "--no-report", "--out", str(tmp_path / "a")]
        )
        == 0
    )
    assert run(["fit", session, "--neuron", "faulty-neuron", *SHORT, "--no-report", "--out", str(tmp_path / "b")]) == 1
    import fitspike_listener

    good, bad = fitspike_listener.heard[:4], fitspike_listener.heard[4:]
    assert good[0] == ("start", "fitspike:spiking-network", 2, tmp_path / "a")
    assert [(what, step) for what, step, _ in good[1:3]] == [("step", 1), ("step", 2)] and good[1][2] == {float}
    assert good[3] == ("end", "FitResult", True)
    assert bad == [("start", "fitspike:spiking-network", 2, tmp_path / "b"), ("end", "PluginError", False)]


def test_a_citation_of_the_wrong_type_does_not_cost_the_fit(plugin_folder, registry_of, session, tmp_path):
    plugin_folder.install("careless", NEURON.format(name="careless-neuron", aliases=()).replace('Citation("Nobody 2000")', '"Nobody 2000"'))
    registry_of()
    assert run(["fit", session, "--neuron", "careless-neuron", *SHORT, "--no-report", "--out", str(tmp_path / "run")]) == 0
    assert "Nobody 2000" in (tmp_path / "run" / "citations.bib").read_text(encoding="utf-8")


# -- gone after a run ---------------------------------------------------------------------------------------------------------------


def test_a_run_is_read_and_drawn_without_its_plugin(plugin_folder, registry_of, session, tmp_path, monkeypatch, capsys):
    plugin_folder.install("transient", NEURON.format(name="transient-neuron", aliases=()), version="1.2")
    registry_of()
    out = tmp_path / "run"
    assert run(["fit", session, "--neuron", "transient-neuron", *SHORT, "--out", str(out)]) == 0
    before = FitResult.load(out)
    bias = before.params["bias"]
    # As pip uninstalls: module and installation record go, and a new process finds neither.
    shutil.rmtree(plugin_folder.path / "fitspike_transient-1.2.dist-info")
    (plugin_folder.path / "fitspike_transient.py").unlink()
    monkeypatch.delitem(__import__("sys").modules, "fitspike_transient")
    registry_of()
    result = FitResult.load(out)
    assert np.array_equal(result.params["bias"], bias) and result.scores == before.scores
    assert {entry.unit for entry in result.specs.values()} >= {"1"} and result.history
    shutil.rmtree(out / "figures")
    (out / "report.html").unlink()
    capsys.readouterr()
    assert run(["plot", str(out)]) == 0
    assert list((out / "figures").glob("*.svg"))
    where = "neuron model 'transient:transient-neuron' of fitspike-transient 1.2, which is not installed here"
    simulated = ["simulate", str(out), "--out", str(tmp_path / "free"), "--duration", "1"]
    for arguments in (simulated, ["score", str(out)], ["connectivity", str(out)], ["compare", str(out), str(out)]):
        status = run(arguments)
        error = capsys.readouterr().err
        assert "Traceback" not in error
        if arguments[0] == "compare":
            assert status == 0, "stored scores need no plugin"
        else:
            assert status == 1 and where in error and "pip install 'fitspike-transient==1.2'" in error, arguments


def test_a_plugin_that_is_there_but_does_not_load_is_told_from_one_that_is_not(plugin_folder, registry_of, session, tmp_path, monkeypatch):
    plugin_folder.install("transient", NEURON.format(name="transient-neuron", aliases=()), version="1.2")
    registry_of()
    out = tmp_path / "run"
    assert run(["fit", session, "--neuron", "transient-neuron", *SHORT, "--no-report", "--out", str(out)]) == 0
    monkeypatch.setenv("FITSPIKE_PLUGINS", "-transient")
    registry_of()
    with pytest.raises(PluginError, match=r"of fitspike-transient 1.2, which is installed but disabled"):
        FitResult.load(out).simulate(duration_s=1.0)
    monkeypatch.delenv("FITSPIKE_PLUGINS")
    (plugin_folder.path / "fitspike_transient.py").write_text("import a_package_that_nobody_has", encoding="utf-8")
    monkeypatch.delitem(__import__("sys").modules, "fitspike_transient")
    registry_of()
    with pytest.raises(
        PluginError, match=r"which is installed but failed to load: importing fitspike_transient failed: ModuleNotFoundError"
    ):
        FitResult.load(out).simulate(duration_s=1.0)
