"""Configuration: layers, suggestions, all problems at once, and files that read back as they were."""

import tomllib
from pathlib import Path

import numpy as np
import pytest

from fitspike.cli.settings import resolve_settings
from fitspike.config import RunConfig, all_keys, explain, known_keys, parse_config
from fitspike.config_layers import Layer, merge, parse_settings, project_file, read_layer, standing_layers
from fitspike.errors import InvalidInputError
from fitspike.toml_text import to_toml


def test_later_layers_win_and_say_where_a_value_comes_from():
    layers = [Layer("a", {"seed": 1, "stop": {"max_steps": 5, "patience": 3}}), Layer("b", {"stop": {"max_steps": 7}})]
    merged, origins = merge(layers)
    assert merged == {"seed": 1, "stop": {"max_steps": 7, "patience": 3}}
    assert origins == {"seed": "a", "stop.max_steps": "b", "stop.patience": "a"}


def test_another_model_drops_the_settings_of_the_one_before():
    first = Layer("file", {"model": {"name": "coupled-glm", "history_ms": 100}})
    assert merge([first, Layer("set", {"model": {"history_ms": 50}})])[0]["model"] == {"name": "coupled-glm", "history_ms": 50}
    merged, origins = merge([first, Layer("option", {"model": "spiking-network"})])
    assert merged["model"] == {"name": "spiking-network"}
    assert origins == {"model.name": "option"}


def test_losses_named_by_an_option_are_all_there_are(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("seed = 3\n[loss]\nnll = 1.0\nnoise_correlation = { weight = 0.1, n_lags = 7 }\npsth = 5.0\n", encoding="utf-8")
    assert set(resolve_settings(file=recipe).loss) == {"nll", "noise_correlation", "psth"}
    only = resolve_settings(file=recipe, options={"loss": {"nll": {"weight": 2.0}}})
    assert {name: term.weight for name, term in only.loss.items()} == {"nll": 2.0} and only.seed == 3
    both = resolve_settings(file=recipe, options={"loss": {"nll": {"weight": 1.0}, "noise_correlation": {"weight": 0.5}}}).loss
    assert both["noise_correlation"].weight == 0.5 and both["noise_correlation"].settings == {"n_lags": 7}


@pytest.mark.parametrize("name", ["v1-gratings", "locust-antennal-lobe"])
def test_recipes_of_the_documentation_are_configurations(name):
    recipe = resolve_settings(file=Path(__file__).parents[3] / "docs" / "examples" / f"{name}.toml")
    assert {"nll", "psth", "noise_correlation"} <= set(recipe.loss) and recipe.model.settings["time_bumps"] > 0


def test_unknown_keys_and_wrong_values_are_reported_together():
    with pytest.raises(InvalidInputError) as caught:
        parse_config({"modle": "x", "stop": {"max_stps": 2, "max_minutes": -1}, "threads": 0, "split": 3})
    text = str(caught.value)
    assert "5 problems" in text
    assert "'stop.max_stps'; did you mean 'max_steps'?" in text and "'modle'; did you mean 'model'?" in text
    assert "stop.max_minutes = -1" in text and "threads = 0" in text and "split = 3" in text


def test_a_newer_file_is_refused():
    with pytest.raises(InvalidInputError, match="format version 2; this fitspike reads up to 1"):
        parse_config({"format_version": 2})


def test_short_forms_mean_the_long_ones():
    short = parse_config({"model": "spiking-network", "loss": "nll", "neuron": "lif", "transforms": ["prune"]})
    full = {"model": {"name": "spiking-network"}, "loss": {"nll": {"weight": 1.0}}, "neuron": {"name": "lif"}}
    assert short == parse_config(full | {"transforms": [{"name": "prune"}]})
    assert parse_config({"loss": {"nll": 1, "psth": 0.5}}).loss["psth"].weight == 0.5
    assert parse_config({"transforms": {"name": "prune"}}).transforms == short.transforms


def test_one_setting_of_one_transform_alone_is_refused_with_how_to_set_the_list():
    layer = parse_settings(["transforms.0.fraction=0.5"], known_keys([]))
    with pytest.raises(InvalidInputError, match=r"is set whole, such as transforms=\[\{name = "):
        parse_config(layer)


def test_settings_are_read_as_toml_and_bare_ones_go_to_the_model():
    texts = ["history_ms=100", "stop.max_steps=5", "neuron=lif", "neuron.tau_m_ms=3.5", "seed=4", "dale=true", "split=time:0.3"]
    found = parse_settings([*texts, "model.signals=['x', 'y']"], known_keys([]))
    assert found["model"] == {"history_ms": 100, "dale": True, "signals": ["x", "y"]}
    assert found["neuron"] == {"name": "lif", "tau_m_ms": 3.5}
    assert found["stop"] == {"max_steps": 5} and found["seed"] == 4 and found["split"] == "time:0.3"
    with pytest.raises(InvalidInputError, match="not of the form key=value"):
        parse_settings(["history_ms"], known_keys([]))


def test_files_of_user_and_project_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "fitspike").mkdir(parents=True)
    (tmp_path / "home" / "fitspike" / "config.toml").write_text("seed = 1\nthreads = 2\n")
    below = tmp_path / "project" / "analysis"
    below.mkdir(parents=True)
    (tmp_path / "project" / "fitspike.toml").write_text("seed = 3\n")
    assert project_file(below) == tmp_path / "project" / "fitspike.toml"
    assert merge(standing_layers(below))[0] == {"seed": 3, "threads": 2}


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("model = coupled-glm\n")
    with pytest.raises(InvalidInputError, match=r"run\.toml is no valid TOML.*need quotes"):
        read_layer(path)
    with pytest.raises(InvalidInputError, match="cannot read configuration"):
        read_layer(tmp_path / "none.toml")


NESTED = {
    "format_version": 1,
    "dt_ms": 0.1 + 0.2,
    "seed": 2**40,
    "data": {
        "path": ["a b.nwb", 'quote " and \\ back\nline'],
        "where": ["contamination < 0.05"],
        "reader": {"unit": "ms", "x": {"y": [1, 2]}},
    },
    "model": {"name": "m", "ridge": [0.1, 1e-300], "flag": True, "odd key": "é"},
    "loss": {"nll": {"weight": 1.0}, "psth": {"weight": 0.5}},
    "transforms": [{"name": "prune", "fraction": 0.25}, {"name": "freeze"}],
}


def test_toml_text_reads_back_as_it_was():
    assert tomllib.loads(to_toml(NESTED)) == NESTED
    numpy_values = {"x": np.float64(0.1), "n": np.int64(3), "b": np.bool_(True), "v": np.array([0.5, 2.0]), "l": [np.float32(0.5)]}
    assert tomllib.loads(to_toml(numpy_values)) == {"x": 0.1, "n": 3, "b": True, "v": [0.5, 2.0], "l": [0.5]}
    assert tomllib.loads(to_toml({"a": None, "b": {"c": None}, "d": float("inf")})) == {"b": {}, "d": float("inf")}
    with pytest.raises(InvalidInputError, match="model.init = .* cannot be written"):
        to_toml({"model": {"init": object()}})


def test_a_configuration_survives_its_file():
    config = parse_config(NESTED)
    assert parse_config(tomllib.loads(to_toml(config.to_dict()))) == config
    assert parse_config(tomllib.loads(to_toml(RunConfig().to_dict()))) == RunConfig()


@pytest.mark.parametrize("key", all_keys())
def test_every_key_is_explained(key):
    text = explain(key)
    assert len(text) > 20 and "default" in text.lower()


def test_an_unknown_key_is_not_explained():
    with pytest.raises(InvalidInputError, match="no configuration key 'stop.max_step'; did you mean 'stop.max_steps'"):
        explain("stop.max_step")


@pytest.mark.parametrize("key", all_keys())
def test_every_key_is_documented(key):
    page = (Path(__file__).parents[3] / "docs" / "config.md").read_text(encoding="utf-8")
    assert f"| `{key}` | {explain(key)} |" in page


@pytest.mark.parametrize(
    ("settings", "model"),
    [
        ([], "coupled-glm"),
        (["neuron.name=lif"], "spiking-network"),
        (["rule.name=bptt"], "coupled-glm"),
        (["neuron.name=lif", "model.n_hidden=2"], "spiking-network"),
        (["neuron.name=lif", "model.name=coupled-glm"], "coupled-glm"),
        (["rule.name=no-such-rule"], "coupled-glm"),
    ],
)
def test_the_model_follows_from_neuron_and_rule_where_none_is_named(settings, model):
    assert resolve_settings(settings=settings).model.name == model
