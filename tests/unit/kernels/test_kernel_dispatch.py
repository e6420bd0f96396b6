"""The choice of a kernel backend: priorities, reasons, explicit requests, and nothing imported before it is needed."""

import logging
import subprocess
import sys

import pytest

from fitspike.errors import BackendError, InvalidInputError, UnknownNameError
from fitspike.kernels import compiling, dispatch


@pytest.fixture
def table(monkeypatch):
    """Return an empty table of kernels with one operation in it."""
    monkeypatch.setattr(dispatch, "_TABLE", {})
    dispatch._log_choice.cache_clear()
    dispatch.register_kernel("double", "reference", lambda x: 2 * x)
    dispatch.register_kernel("double", "fast", lambda x: x + x, priority=10, supports=_only_small)
    dispatch.register_kernel("double", "gpu", "nowhere:function", priority=20, needs=("a_package_nobody_has",))
    return dispatch


def _only_small(*, n_values=0, **_):
    return None if n_values < 100 else f"{n_values} values are too many"


def test_auto_takes_the_highest_priority_that_can_run(table):
    assert table.choose("double", n_values=10).backend == "fast"
    assert table.choose("double", n_values=1000).backend == "reference"
    assert table.choose("double", n_values=10).load()(4) == 8


def test_a_named_backend_runs_or_fails_with_its_reason(table):
    assert table.choose("double", "reference", n_values=10).backend == "reference"
    with pytest.raises(
        BackendError, match=r"'fast' cannot run kernel 'double': 1000 values are too many. Use backend='auto' or 'reference'"
    ):
        table.choose("double", "fast", n_values=1000)
    with pytest.raises(BackendError, match="a_package_nobody_has not installed"):
        table.choose("double", "gpu")
    with pytest.raises(UnknownNameError, match="did you mean 'fast'"):
        table.choose("double", "fats")
    with pytest.raises(UnknownNameError, match="did you mean 'double'"):
        table.choose("doubel")


def test_where_nothing_can_run_every_reason_is_given(table, monkeypatch):
    monkeypatch.setattr(dispatch, "_TABLE", {"double": {k: v for k, v in dispatch._TABLE["double"].items() if k != "reference"}})
    with pytest.raises(BackendError, match="gpu: a_package_nobody_has not installed; fast: 1000 values are too many"):
        table.choose("double", n_values=1000)


def test_explain_says_why_each_backend_is_or_is_not_taken(table):
    rows = {row.backend: row for row in table.explain("double", n_values=10)}
    assert [name for name, row in rows.items() if row.chosen] == ["fast"]
    assert "not installed" in rows["gpu"].reason and "preferred backend is taken" in rows["reference"].reason
    assert table.operations() == ("double",)


def test_a_cpu_kernel_does_not_run_on_another_device(table):
    table.register_kernel("double", "plain", lambda x: x, priority=15)
    assert table.choose("double", device="cpu").backend == "plain"
    assert table.choose("double", device="cuda:0").backend == "fast"  # its own `supports` decides


def test_two_implementations_under_one_name_are_refused(table):
    with pytest.raises(InvalidInputError, match="already has a backend 'fast'"):
        table.register_kernel("double", "fast", lambda x: x)
    assert table.register_kernel("double", "gpu", "nowhere:function", priority=20, needs=("a_package_nobody_has",)).backend == "gpu"


def test_the_automatic_choice_is_logged_once(table, caplog):
    with caplog.at_level(logging.INFO, logger="fitspike"):
        for _ in range(3):
            table.choose("double", n_values=1000)
    assert len(caplog.messages) == 1 and "reference" in caplog.messages[0] and "too many" in caplog.messages[0]


def test_every_built_in_operation_has_a_reference_that_runs():
    for op in dispatch.operations():
        names = [one.backend for one in dispatch.implementations(op)]
        assert "reference" in names
        assert callable(dispatch.choose(op, "reference").load())


def test_numba_and_torch_are_not_imported_before_a_kernel_is_loaded():
    code = (
        "import sys, fitspike.kernels.dispatch as d, fitspike.kernels.densify; d.explain('densify');"
        "print('numba' in sys.modules, 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == ["False", "False"]


def test_kernels_compile_without_a_cache_where_none_can_be_written():
    calls = []

    def njit(**options):
        calls.append(options)
        if options.get("cache"):
            raise RuntimeError("cannot cache function 'f': no locator available for file 'x'")
        return lambda function: function

    assert compiling.cached(njit, nogil=True)(max) is max
    assert calls == [{"cache": True, "nogil": True}, {"nogil": True}]

    def broken(**_):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        compiling.cached(broken)(max)
