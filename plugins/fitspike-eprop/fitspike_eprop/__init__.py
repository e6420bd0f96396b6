"""E-prop for fitspike, registered by hook: learning by eligibility traces, forward in time or by an equivalent reverse recursion."""

from fitspike.plugin import hookimpl


@hookimpl
def fitspike_register_learning_rules(register):
    """Register the learning rule."""
    register("fitspike_eprop.rule:EProp", name="e-prop")
