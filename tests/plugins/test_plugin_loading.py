"""A broken plugin is named and harms nothing but itself."""

import json
import logging

import pytest

from fitspike.errors import AmbiguousNameError, InvalidInputError, PluginError, UnknownNameError
from fitspike.plugin.manager import Switch, parse_switch
from fitspike.plugin.version import api_problem

NEURON = """
    from dataclasses import dataclass
    from fitspike.plugin import Citation, hookimpl

    @dataclass(frozen=True)
    class Neuron:
        name = "{name}"
        citation = Citation("Nobody 2000")
        gain: float = 1.0
        def param_specs(self, n_neurons): ...
        def init_state(self, params, n_trials): ...
        def step(self, params, state, current, spikes, dt_ms): ...

    @hookimpl
    def fitspike_register_neuron_models(register):
        register(Neuron, aliases=("{name}-alias",))
"""

BROKEN = {
    "import-error": ("import a_package_that_nobody_has", "No module named 'a_package_that_nobody_has'"),
    "system-exit": ("raise SystemExit(3)", "SystemExit: 3"),
    "raising-hook": (
        NEURON.format(name="half") + "        raise RuntimeError('the hook broke')",
        "fitspike_register_neuron_models failed: RuntimeError: the hook broke",
    ),
    "wrong-arguments": (
        "from fitspike.plugin import hookimpl\n@hookimpl\ndef fitspike_register_models(register, colour): ...",
        "colour",
    ),
    "unknown-hook": (
        NEURON.format(name="of-unknown-hook") + "\n    @hookimpl\n    def fitspike_register_neurons(register): ...",
        "knows no hook 'fitspike_register_neurons'; did you mean 'fitspike_register_neuron_models'?",
    ),
    "newer-api": ("FITSPIKE_API = (1, 99)", "newer than this fitspike's 1.0"),
    "wrapper": (
        "from fitspike.plugin import hookimpl\n@hookimpl(wrapper=True)\ndef fitspike_register_models(register):\n    yield",
        "fitspike_register_models is a hook wrapper",
    ),
    "generator": (
        "from fitspike.plugin import hookimpl\n@hookimpl\ndef fitspike_register_models(register):\n    yield",
        "it returned <generator",
    ),
}


def install_broken(folder):
    for name, (source, _) in BROKEN.items():
        folder.install(name, source)
    folder.install("good", NEURON.format(name="good-neuron"))


def test_each_broken_plugin_is_recorded_with_its_reason_and_the_good_one_works(plugin_folder, registry_of):
    install_broken(plugin_folder)
    registry = registry_of()
    records = {record.name: record for record in registry.records()}
    for name, (_, reason) in BROKEN.items():
        assert reason in records[name].error, name
        assert (records[name].distribution, records[name].version) == (f"fitspike-{name}", "1.0")
    assert records["good"].status == "loaded"
    assert records["unknown-hook"].status == "partly loaded"
    assert {records[name].status for name in ("import-error", "system-exit", "wrong-arguments", "newer-api", "wrapper")} == {"failed"}
    assert registry.get("neuron_models", "good-neuron").name == "good-neuron"
    assert registry.get("neuron_models", "of-unknown-hook").name == "of-unknown-hook"


def test_a_raising_hook_enters_nothing_not_even_what_it_registered_before(plugin_folder, registry_of):
    install_broken(plugin_folder)
    assert "half" not in registry_of().names("neuron_models")


def test_each_problem_is_logged_once(plugin_folder, registry_of):
    install_broken(plugin_folder)
    # A handler of its own: commands run by other tests leave theirs on this logger.
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())
    logger = logging.getLogger("fitspike")
    logger.addHandler(handler)
    registry = registry_of()
    registry.records()
    registry.records()
    logger.removeHandler(handler)
    for name in BROKEN:
        assert sum(f"plugin '{name}' (fitspike-{name} 1.0)" in message for message in seen) == 1


def test_keyboard_interrupt_passes(plugin_folder, registry_of):
    plugin_folder.install("interrupted", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        registry_of().records()


def test_what_a_plugin_prints_stays_off_standard_output(plugin_folder, registry_of, capsys):
    plugin_folder.install("loud", "print('hello from the import')")
    registry_of().records()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "hello from the import" in captured.err


def test_one_name_of_two_plugins_is_an_error_when_used_bare(plugin_folder, registry_of):
    plugin_folder.install("first", NEURON.format(name="same"))
    plugin_folder.install("second", NEURON.format(name="same"))
    registry = registry_of()
    with pytest.raises(AmbiguousNameError, match="first:same, second:same"):
        registry.get("neuron_models", "same")
    assert registry.entry("neuron_models", "second:same").distribution == "fitspike-second"
    assert {"first:same", "second:same"} <= set(registry.names("neuron_models"))
    assert "same" not in registry.names("neuron_models")


def test_a_built_in_keeps_its_bare_name(plugin_folder, registry_of):
    plugin_folder.install("rival", NEURON.format(name="lif"))
    registry = registry_of()
    assert registry.entry("neuron_models", "lif").qualified_name == "fitspike:lif"
    assert registry.entry("neuron_models", "rival:lif").plugin == "rival"


def test_two_distributions_with_one_plugin_name(plugin_folder, registry_of):
    plugin_folder.install("taken", NEURON.format(name="one"), distribution="a-first")
    plugin_folder.install("taken", NEURON.format(name="two"), distribution="b-second")
    registry = registry_of()
    problems = [record for record in registry.records() if record.problems]
    assert len(problems) == 1
    assert "the plugin name 'taken' is taken by" in problems[0].error
    assert len([name for name in registry.names("neuron_models") if name in ("one", "two")]) == 1


def test_unknown_name_suggests_and_names_the_failed_plugins(plugin_folder, registry_of):
    install_broken(plugin_folder)
    with pytest.raises(UnknownNameError, match=r"did you mean 'good-neuron'\?.*Known: .*'import-error'.*fitspike plugins list"):
        registry_of().get("neuron_models", "good-neurom")


def test_alias_and_settings(plugin_folder, registry_of):
    plugin_folder.install("good", NEURON.format(name="good-neuron"))
    registry = registry_of()
    assert registry.create("neuron_models", "good-neuron-alias", {"gain": 2.0}).gain == 2.0
    with pytest.raises(InvalidInputError, match=r"no setting 'gian'; did you mean 'gain'\?"):
        registry.create("neuron_models", "good-neuron", {"gian": 2.0})


def test_a_target_that_is_imported_late_and_fails_is_blamed_on_its_plugin(plugin_folder, registry_of):
    plugin_folder.install(
        "late",
        """
        from fitspike.plugin import hookimpl
        @hookimpl
        def fitspike_register_models(register):
            register("fitspike_late_nowhere:Model", name="late-model")
            register("fitspike_late:NotAModel", name="no-model")
        class NotAModel:
            name = "no-model"
        """,
    )
    registry = registry_of()
    assert "late-model" in registry.names("models")
    with pytest.raises(PluginError, match=r"plugin 'late' \(fitspike-late 1.0\) failed while importing .*ModuleNotFoundError"):
        registry.get("models", "late-model")
    with pytest.raises(PluginError, match="is no model: it lacks citation, emissions, param_specs, log_likelihood, rollout"):
        registry.get("models", "no-model")


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ('register("module.attribute", name="x")', "not of the form 'module:attribute'"),
        ('register("module:attribute")', "needs name="),
        ('register("module:attribute", name="a b")', "is no name to register"),
        ('register("m:a", name="x"); register("m:b", name="x")', "registers 'x' twice"),
    ],
)
def test_wrong_registration_is_explained(plugin_folder, registry_of, call, reason):
    plugin_folder.install("wrong", f"from fitspike.plugin import hookimpl\n@hookimpl\ndef fitspike_register_losses(register):\n    {call}")
    record = {record.name: record for record in registry_of().records()}["wrong"]
    assert reason in record.error


def test_kernel_of_a_plugin_can_be_chosen(plugin_folder, registry_of):
    from fitspike.kernels import dispatch

    plugin_folder.install(
        "fast",
        """
        from fitspike.plugin import hookimpl
        def densify(*arguments, **settings): ...
        def supports(**facts):
            return None if facts.get("n_neurons", 0) < 5 else "only up to four neurons"
        @hookimpl
        def fitspike_register_kernels(register):
            register("densify", "test-fast", densify, supports=supports, priority=99)
        """,
    )
    try:
        registry_of()  # nothing else is asked of it: a fit from Python chooses kernels too
        assert dispatch.choose("densify", n_neurons=4).backend == "test-fast"
        assert dispatch.choose("densify", n_neurons=5).backend != "test-fast"
    finally:
        dispatch._TABLE["densify"].pop("test-fast", None)


@pytest.mark.parametrize(
    ("text", "switch"),
    [
        ("", Switch()),
        ("none", Switch(only=frozenset())),
        ("only:a,b", Switch(only=frozenset("ab"))),
        ("-a,-b", Switch(without=frozenset("ab"))),
    ],
)
def test_switch(text, switch):
    assert parse_switch(text) == switch


def test_switch_that_is_not_understood():
    with pytest.raises(InvalidInputError, match="only:NAME,NAME"):
        parse_switch("a,-b")


def test_switch_and_configuration_disable_plugins(plugin_folder, registry_of, monkeypatch, tmp_path):
    for name in ("one", "two"):
        plugin_folder.install(name, NEURON.format(name=name))

    def loaded():
        return {record.name for record in registry_of().records() if record.status == "loaded"} - {"fitspike"}

    assert {"one", "two"} <= loaded()
    monkeypatch.setenv("FITSPIKE_PLUGINS", "only:two")
    assert loaded() == {"two"}
    monkeypatch.setenv("FITSPIKE_PLUGINS", "-fitspike-two")  # the distribution's name does too
    assert "one" in loaded()
    assert "two" not in loaded()
    monkeypatch.delenv("FITSPIKE_PLUGINS")
    (tmp_path / "fitspike.toml").write_text('[plugins]\ndisable = ["one"]\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert "two" in loaded()
    assert "one" not in loaded()


@pytest.mark.parametrize(("wanted", "is_good"), [((1, 0), True), ((1, 1), False), ((0, 9), False), ((2, 0), False), ("1.0", False)])
def test_api_version(wanted, is_good):
    assert (api_problem(wanted) is None) == is_good


def test_lifecycle_hooks_are_called_one_by_one_and_a_raising_one_is_muted(plugin_folder, registry_of):
    plugin_folder.install(
        "breaks",
        """
        from fitspike.plugin import hookimpl
        heard = []
        @hookimpl
        def fitspike_fit_start(run):
            heard.append("start")
        @hookimpl
        def fitspike_fit_step(step):
            heard.append(step)
            raise SystemExit("enough")
        @hookimpl
        def fitspike_fit_end():
            heard.append("end")
        """,
    )
    plugin_folder.install(
        "listens",
        """
        from fitspike.plugin import hookimpl
        heard = []
        @hookimpl
        def fitspike_fit_step(metrics, step):
            heard.append((step, metrics["nll"]))
        """,
    )
    lifecycle = registry_of().lifecycle()
    lifecycle.notify("fitspike_fit_start", run=None)
    for step in (1, 2):
        lifecycle.notify("fitspike_fit_step", run=None, step=step, metrics={"nll": step / 2})
    lifecycle.notify("fitspike_fit_end", run=None, result=None)
    import fitspike_breaks
    import fitspike_listens

    assert fitspike_breaks.heard == ["start", 1]
    assert fitspike_listens.heard == [(1, 0.5), (2, 1.0)]
    assert lifecycle.muted == {"breaks": "SystemExit: enough"}
    assert set(registry_of().lifecycle().muted) == set(), "the next run starts afresh"


def test_every_command_works_beside_broken_plugins_and_names_each(plugin_folder):
    install_broken(plugin_folder)
    for arguments in (["--help"], ["plugins", "list", "--json"], ["config", "show"], ["info", "--json"]):
        done = plugin_folder.run(*arguments)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        if arguments != ["--help"]:
            for name in BROKEN:
                assert f"plugin '{name}'" in done.stderr, (arguments, name)
        if "--json" in arguments:
            json.loads(done.stdout)
    quiet = plugin_folder.run("config", "show", "--no-plugins")
    assert (quiet.returncode, quiet.stderr) == (0, "")
