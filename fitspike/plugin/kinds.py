"""The kinds of thing a plugin can register: the one table that hooks, registry, scaffold, conformance and command line read."""

from __future__ import annotations

from dataclasses import dataclass

from fitspike.errors import UnknownNameError, did_you_mean


@dataclass(frozen=True)
class Kind:
    """One table of the registry. `members` are what a target must have."""

    table: str
    label: str
    members: tuple[str, ...]

    @property
    def option(self) -> str:
        """Return the spelling of the command line: "neuron-model"."""
        return self.label.replace(" ", "-")

    @property
    def hook(self) -> str:
        """Return the name of the registration hook."""
        return f"fitspike_register_{self.table}"


KINDS: dict[str, Kind] = {
    kind.table: kind
    for kind in (
        Kind("neuron_models", "neuron model", ("name", "citation", "param_specs", "init_state", "step")),
        Kind("models", "model", ("name", "citation", "emissions", "param_specs", "log_likelihood", "rollout")),
        Kind("statistics", "statistic", ("name", "unit", "default_distance", "init", "update", "finalise")),
        Kind("losses", "loss", ("name", "needs", "__call__")),
        Kind("learning_rules", "learning rule", ("name", "citation", "requires", "bind")),
        Kind("update_transforms", "update transform", ("name", "citation", "init", "apply")),
        Kind("hardware_targets", "hardware target", ("name", "constraints", "compile", "run")),
        Kind("datasets", "dataset", ("name", "describe", "load", "truth")),
        Kind("readers", "reader", ("name", "extensions", "can_read", "read")),
    )
}
"""Tables whose entries keep a protocol. Kernels and commands are registered too, with signatures of their own."""

EXTRA_TABLES = ("kernels", "commands")


def kind_of(spelling: str) -> Kind:
    """Return the kind called "neuron_models", "neuron model" or "neuron-model".

    Raises
    ------
    UnknownNameError
        For any other spelling; the message lists the kinds.
    """
    for kind in KINDS.values():
        if spelling in (kind.table, kind.label, kind.option):
            return kind
    options = [kind.option for kind in KINDS.values()]
    raise UnknownNameError(f"no kind {spelling!r}{did_you_mean(spelling, options)} Kinds: {', '.join(options)}.")
