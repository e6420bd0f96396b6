"""From names and settings to objects: model, neuron, losses, rule, update transforms."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from fitspike.config import Component
from fitspike.errors import FitspikeError, InvalidInputError, Problems, did_you_mean
from fitspike.fitting.request import NETWORK, Request
from fitspike.losses.summary_statistics import StatisticLoss
from fitspike.models.base import HasSolver
from fitspike.plugin.registry import get_registry
from fitspike.plugin.settings import settings_of
from fitspike.results.components import reference_to

WeightedLosses = Mapping[str, tuple[Any, float]]


@dataclass(frozen=True, eq=False)
class Components:
    """The objects of a fit. `rule` is None where the model's own solver is used."""

    model: Any
    losses: WeightedLosses
    rule: Any | None
    transforms: tuple[Any, ...]

    @property
    def uses_solver(self) -> bool:
        """Return whether the model's own solver does the fit."""
        return self.rule is None


def resolve(request: Request, problems: Problems) -> Components | None:
    """Return the objects that a request names; every problem is added to `problems`, then None is returned."""
    before = len(problems.texts)
    neuron = _attempt(problems, _neuron, request)
    model = _attempt(problems, _model, request, neuron)
    losses = {}
    for name, term in request.config.loss.items():
        thing = _attempt(problems, _loss, request, name)
        losses[name] = (thing, term.weight)
    given = request.objects.get("transforms", (None,) * len(request.config.transforms))
    transforms = tuple(_attempt(problems, _transform, *pair) for pair in zip(given, request.config.transforms, strict=True))
    rule = _attempt(problems, _rule, request, model, losses, transforms)
    return Components(model, losses, rule, transforms) if len(problems.texts) == before else None


def _attempt(problems: Problems, function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except FitspikeError as error:
        problems.add_error(error)
        return None


def _neuron(request: Request) -> Any | None:
    """Return the neuron model that is asked for, or None."""
    table = request.config.neuron
    return None if table is None else request.objects.get("neuron") or _create("neuron_models", table.name, table.settings)


def _model(request: Request, neuron: Any | None) -> Any:
    """Return the model, with the neuron model in it where there is one."""
    config = request.config
    if (model := request.objects.get("model")) is not None:
        return model if neuron is None else _with_neuron(model, neuron)
    table, settings = config.model, config.model.settings
    if neuron is not None:
        known = settings_of(get_registry().get("models", table.name))
        if known is not None and "neuron" not in known:
            raise InvalidInputError(
                f"model {table.name!r} is not made of neuron models, so that neuron={neuron.name!r} has no place in it. Use "
                f"model={NETWORK!r}."
            )
        _raise_if_misplaced(table, known or frozenset(), neuron)
        settings["neuron"] = neuron
    return _create("models", table.name, settings)


def _raise_if_misplaced(table: Component, known: frozenset[str], neuron: Any) -> None:
    """Raise for settings given to a model that are, or nearly are, settings of its neuron model."""
    of_neuron = sorted(settings_of(neuron) or ())
    misplaced: dict[str, str] = {}
    for name in table.settings:
        if name not in known and (name in of_neuron or not get_close_matches(name, known, n=1)):
            misplaced.update((name, near) for near in get_close_matches(name, of_neuron, n=1))
    if misplaced:
        raise InvalidInputError(
            f"model {table.name!r} has no setting {' or '.join(map(repr, misplaced))}. Settings of neuron model {neuron.name!r} are given "
            f"in its own table: {', '.join(f'neuron.{name}' for name in misplaced.values())}."
        )


def _with_neuron(model: Any, neuron: Any) -> Any:
    if "neuron" not in (settings_of(model) or ()):
        raise InvalidInputError(f"model {model.name!r} is not made of neuron models. Use model={NETWORK!r} with this neuron.")
    return dataclasses.replace(model, neuron=neuron)


def _loss(request: Request, name: str) -> Any:
    """Return the loss of that name; where only a statistic has it, the distance between recording and simulation in that statistic."""
    if (given := request.objects.get(f"loss/{name}")) is not None:
        return given
    settings, registry = request.config.loss[name].settings, get_registry()
    if name in registry.names("losses") or name not in registry.names("statistics"):
        return _create("losses", name, settings)
    of_loss = {key: settings[key] for key in settings if key in ("distance", "two_half")}
    statistic = _create("statistics", name, {key: value for key, value in settings.items() if key not in of_loss})
    return StatisticLoss(statistic, **of_loss)


def _transform(given: Any, table: Component) -> Any:
    """Return an update transform: the object given, or what its table names."""
    return _create("update_transforms", table.name, table.settings) if given is None or isinstance(given, str | Mapping) else given


def _rule(request: Request, model: Any, losses: WeightedLosses, transforms: tuple[Any, ...]) -> Any | None:
    """Return the learning rule, or None for the model's own solver.

    "auto" takes the solver where there is one and nothing but the likelihood is asked for, else back-propagation.
    """
    table = request.config.rule
    if (given := request.objects.get("rule")) is not None:
        return given
    if table.name != "auto":
        return _create("learning_rules", table.name, table.settings)
    if isinstance(model, HasSolver) and set(losses) == {"nll"} and not transforms:
        return None
    return _create("learning_rules", "bptt", table.settings)


def _create(kind: str, name: str, settings: Mapping[str, Any]) -> Any:
    """Return the registered object of that name; settings read from text are brought into the form that frozen dataclasses want."""
    entry = get_registry().entry(kind, name)
    return entry.create({key: _as_setting(value) for key, value in settings.items()})


def _as_setting(value: Any) -> Any:
    """Return lists as tuples, and the text "none" as None."""
    if isinstance(value, list | tuple):
        return tuple(_as_setting(item) for item in value)
    return None if value == "none" else value


@contextmanager
def blaming_plugins(components: Components, doing: str) -> Iterator[None]:
    """Turn an exception out of third-party code into a PluginError that names the plugin; the cause is chained.

    Which of several third parties is at fault cannot be told from outside; the one that lies deepest is named.
    """
    used = [("models", components.model), ("learning_rules", components.rule), ("neuron_models", getattr(components.model, "neuron", None))]
    used += [("losses", loss) for loss, _ in components.losses.values()]
    used += [("update_transforms", transform) for transform in components.transforms]
    registry = get_registry()
    with ExitStack() as stack:
        for kind, thing in used:
            reference = reference_to(thing, kind) if thing is not None else None
            if reference is not None and reference.distribution:
                stack.enter_context(registry.entry(kind, reference.qualified_name).guard(doing))
        yield


def check_rule(components: Components, problems: Problems) -> bool:
    """Return whether the model has what the learning rule requires; otherwise add to `problems` what is lacking, and what would do."""
    rule, model = components.rule, components.model
    if rule is None or not (lacking := [protocol for protocol in rule.requires if not isinstance(model, protocol)]):
        return True
    wanted = " and ".join(f"{(protocol.__doc__ or protocol.__name__).partition('.')[0]} ({protocol.__name__})" for protocol in lacking)
    registry = get_registry()
    rules = [name for name in registry.names("learning_rules") if _fits(registry.get("learning_rules", name), model)]
    models = [name for name in registry.names("models") if _fits_by_default(rule, name)]
    ways = [f"{key}={' or '.join(map(repr, names))}" for key, names in (("model", models), ("rule", rules)) if names]
    problems.add(
        f"learning rule {rule.name!r} cannot train model {model.name!r}. It needs {wanted[:1].lower()}{wanted[1:]}. "
        + (f"Use {', or '.join(ways)}." if ways else "No model or rule that would do is installed.")
    )
    return False


def _fits(rule: Any, model: Any) -> bool:
    return all(isinstance(model, protocol) for protocol in rule.requires)


def _fits_by_default(rule: Any, name: str) -> bool:
    """Return whether the model of that name, with default settings, has what the rule requires; False where it has no defaults."""
    try:
        return _fits(rule, get_registry().entry("models", name).create())
    except FitspikeError:
        return False


def with_emission(model: Any, wanted: str, *, has_multi_spike_bins: bool) -> Any:
    """Return the model with its emission fixed.

    "auto" (and a model that leaves it open): Poisson where a bin holds several spikes, if the model can, else the model's first emission.

    Raises
    ------
    InvalidInputError
        If the model cannot use that emission.
    """
    own = getattr(model, "emission", None)
    if wanted == "auto" and own not in (None, "auto"):
        return model
    if wanted == "auto":
        wanted = "poisson" if has_multi_spike_bins and "poisson" in model.emissions else model.emissions[0]
    if wanted not in model.emissions:
        raise InvalidInputError(
            f"model {model.name!r} has no emission {wanted!r}{did_you_mean(wanted, model.emissions) or '.'} "
            f"It can use: {', '.join(model.emissions)}."
        )
    return dataclasses.replace(model, emission=wanted) if own is not None else model
