"""The configuration of a command: defaults, the user's and the project's files, a given file, the command's own options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fitspike.config import RunConfig, parse_config
from fitspike.config_layers import Layer, merge, parse_settings, read_layer, standing_layers

DEFAULT = "default"
"""Origin of what no layer gives."""


def resolve_settings(
    *, file: Path | None = None, base: Path | None = None, options: Mapping[str, Any] | None = None, settings: Iterable[str] = ()
) -> RunConfig:
    """Return the checked configuration.

    Parameters
    ----------
    file : configuration file given by the user
    base : run.toml of a run to be resumed; it takes the place of the user's and the project's files
    options : nested settings from options of the command; losses that are named here are all there are
    settings : "key=value" texts

    Raises
    ------
    InvalidInputError
        With every unknown key and wrong value.
    """
    layers = [default_layer()]
    layers += [read_layer(base)] if base is not None else standing_layers()
    if file is not None:
        layers.append(read_layer(file))
    if options and "loss" in options:
        layers = [_without_other_losses(layer, options["loss"]) for layer in layers]
    layers.append(Layer("options", options or {}))
    layers.append(Layer("--set", parse_settings(settings, RunConfig.model_fields)))
    return parse_config(merge_layers(layers)[0])


def default_layer() -> Layer:
    """Return the first layer, which names model and rule, so that others may give settings alone."""
    defaults = RunConfig()
    return Layer(DEFAULT, {"model": {"name": defaults.model.name}, "rule": {"name": defaults.rule.name}})


def merge_layers(layers: Iterable[Layer]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the merged settings and the origin of each; where no layer names the model, neuron model and learning rule decide on it."""
    merged, origins = merge(layers)
    rule = merged["rule"]
    if origins.get("model.name") == DEFAULT and ("neuron" in merged or rule.get("name") != RunConfig().rule.name):
        from fitspike.fitting.request import default_model

        merged["model"]["name"] = default_model("neuron" in merged, rule)
    return merged, origins


def _without_other_losses(layer: Layer, named: Mapping[str, Any]) -> Layer:
    """Return a layer in which only the named losses are left, with their settings."""
    given = layer.values.get("loss")
    kept = {name: term for name, term in given.items() if name in named} if isinstance(given, Mapping) else {}
    return Layer(layer.origin, {**{key: value for key, value in layer.values.items() if key != "loss"}, **({"loss": kept} if kept else {})})
