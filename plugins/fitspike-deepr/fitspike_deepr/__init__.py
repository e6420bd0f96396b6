"""DEEP R and soft DEEP R, update transforms of fitspike that train networks at a given number of connections."""

from fitspike.plugin import hookimpl

FITSPIKE_API = (1, 0)


@hookimpl
def fitspike_register_update_transforms(register):
    """Register both transforms."""
    register("fitspike_deepr.deep_r:DeepR", name="deep-r")
    register("fitspike_deepr.soft_deep_r:SoftDeepR", name="soft-deep-r")
