"""Imports go one way: every file is parsed, imports inside functions included, and held against the layers of the package."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fitspike"

# A file may import its own package and what stands on an earlier line; single modules of one line may import each other.
LAYERS = (
    ("errors", "types", "units"),
    ("citation", "config", "config_layers", "params", "progress", "rng", "toml_text"),
    ("kernels",),
    ("recording",),
    ("neurons", "statistics"),
    ("rollout",),
    ("losses", "models"),
    ("datasets.base", "hardware", "learning"),  # datasets.base holds the protocol that plugins see
    ("plugin",),
    ("datasets",),
    ("scoring",),
    ("plotting",),
    ("results",),
    ("fitting",),
    ("cli",),
    ("__main__",),
)

# Third-party package -> the files (relative to fitspike/, as glob patterns) that alone may import it.
ONLY_IN = {
    "neo": ("recording/neo_reader.py",),
    "quantities": ("recording/neo_reader.py",),
    "elephant": ("statistics/with_elephant.py",),
    "numba": ("kernels/*/numba_*.py", "kernels/numba_*.py"),
    "triton": ("kernels/*/triton_gpu.py",),
    "matplotlib": ("plotting/*.py",),
    "jinja2": ("plotting/*.py",),
    "pluggy": ("plugin/*.py",),
    "pynwb": ("recording/nwb_reader.py",),
    "pydantic": ("config.py",),
    "pooch": ("datasets/*.py",),
    "click": ("cli/*.py",),
    "rich": ("cli/*.py", "progress.py"),
}

# Packages that may not be imported when these files are: `import fitspike`, `fitspike --help` and plugin listings stay fast.
LAZY = ("torch", "numba", "scipy", "neo", "elephant", "matplotlib", "pydantic", "sklearn", "h5py", "pynwb", "rich", "pandas")
LIGHT_FILES = (
    "__init__.py",
    "__main__.py",
    "cli/__init__.py",
    "cli/main.py",
    "citation.py",
    "errors.py",
    "params.py",
    "rng.py",
    "types.py",
    "units.py",
    "*/base.py",
    "plugin/__init__.py",
    "plugin/defaults.py",
    "plugin/hookspecs.py",
    "plugin/kinds.py",
    "plugin/lifecycle.py",
    "plugin/manager.py",
    "plugin/registry.py",
    "plugin/version.py",
)


@dataclass(frozen=True)
class Import:
    """One imported module: the line, whether it runs when the file is imported, whether it is for annotations alone."""

    module: str
    line: int
    is_at_top: bool
    is_for_types: bool


def imports_of(source: str, module: str, is_package: bool) -> list[Import]:
    """Return every import in a source text; `from package import name` counts as package.name."""
    found: list[Import] = []

    def visit(node: ast.AST, is_at_top: bool, is_for_types: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend(Import(alias.name, child.lineno, is_at_top, is_for_types) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    anchor = module.split(".") if is_package else module.split(".")[:-1]
                    anchor = anchor[: len(anchor) - child.level + 1]
                    base = ".".join([*anchor, base] if base else anchor)
                found.extend(Import(f"{base}.{alias.name}", child.lineno, is_at_top, is_for_types) for alias in child.names)
            elif isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
                for statement in child.body:
                    visit(ast.Module([statement], []), is_at_top, True)
                for statement in child.orelse:
                    visit(ast.Module([statement], []), is_at_top, is_for_types)
            else:
                is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                visit(child, is_at_top and not is_function, is_for_types)

    visit(ast.parse(source), True, False)
    return found


def rank_of(module: str) -> tuple[int, str] | None:
    """Return the layer of a fitspike module and the unit (single module or package) it belongs to; None for `fitspike` itself."""
    below = module.split(".")[1:]
    for length in (2, 1):
        unit = ".".join(below[:length])
        for rank, names in enumerate(LAYERS):
            if len(below) >= length and unit in names:
                return rank, unit
    return None


def order_problems(path: str, source: str) -> list[str]:
    """Return the imports of a file under fitspike/ that go the wrong way."""
    module = "fitspike." + path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    own = rank_of(module)
    if path == "__init__.py":
        own = (-1, "fitspike")
    assert own is not None, f"{path} is in no layer: add it to LAYERS"
    problems = []
    for one in imports_of(source, module, path.endswith("__init__.py")):
        if one.module.split(".")[0] != "fitspike":
            continue
        target = rank_of(one.module)
        if target is None or target[1] == own[1] or (one.is_for_types and path.endswith("/base.py")):
            continue
        is_single = "." not in target[1] and not (PACKAGE / target[1]).is_dir()
        if target[0] > own[0] or (target[0] == own[0] and not is_single) or target[1] == own[1].split(".")[0]:
            problems.append(f"{path}:{one.line} imports {one.module}, which does not stand below {own[1]}")
    return problems


def third_party_problems(path: str, source: str) -> list[str]:
    """Return the imports of third-party packages that a file under fitspike/ may not have."""
    module = "fitspike." + path.removesuffix(".py").replace("/", ".")
    problems = []
    for one in imports_of(source, module, path.endswith("__init__.py")):
        package = one.module.split(".")[0]
        allowed = ONLY_IN.get(package)
        if allowed is not None and not any(Path(path).match(pattern) for pattern in allowed):
            problems.append(f"{path}:{one.line} imports {package}, which only {', '.join(allowed)} may")
        is_light = any(path == pattern if "*" not in pattern else Path(path).match(pattern) for pattern in LIGHT_FILES)
        if is_light and package in LAZY and one.is_at_top and not one.is_for_types:
            problems.append(f"{path}:{one.line} imports {package} when it is imported; do so inside the function that needs it")
    return problems


def plugin_problems(path: str, source: str) -> list[str]:
    """Return the imports from fitspike's inside in a file of another distribution."""
    problems = []
    for one in imports_of(source, "elsewhere.module", False):
        parts = one.module.split(".")
        if parts[0] == "fitspike" and parts[1:2] not in ([], ["plugin"]) and not is_public_name(parts[1]):
            problems.append(f"{path}:{one.line} imports {one.module}; use fitspike and fitspike.plugin only")
        if parts[:2] == ["fitspike", "plugin"] and len(parts) > 2 and (PACKAGE / "plugin" / f"{parts[2]}.py").exists():
            problems.append(f"{path}:{one.line} imports {one.module}; use the names in fitspike.plugin.__all__ only")
    return problems


def is_public_name(name: str) -> bool:
    """Return whether `from fitspike import name` gives a public name and no module."""
    import fitspike

    return name in fitspike.__all__


def files_of_package() -> list[str]:
    return sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if "templates" not in path.parts)


@pytest.mark.parametrize("path", files_of_package())
def test_file_imports_lower_layers_only(path):
    assert order_problems(path, (PACKAGE / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", files_of_package())
def test_file_imports_third_party_packages_where_they_belong(path):
    assert third_party_problems(path, (PACKAGE / path).read_text(encoding="utf-8")) == []


def test_other_distributions_import_the_public_names_only():
    problems = []
    for folder in ("plugins", "datasets"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "tests" not in path.parts and "build" not in path.parts:
                problems += plugin_problems(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
    assert problems == []


def test_the_core_and_its_tests_need_no_plugin():
    """Each distribution in plugins/ can be uninstalled; what needs several of them is judged by the acceptance scripts."""
    plugins = {path.name for path in (ROOT / "plugins").glob("*/fitspike_*") if path.is_dir() and path.suffix != ".egg-info"}
    assert "fitspike_deepr" in plugins
    files = [path for folder in ("fitspike", "datasets", "tests") for path in (ROOT / folder).rglob("*.py")]
    problems = [
        f"{path.relative_to(ROOT)}:{one.line} imports {one.module}"
        for path in files
        if not {"acceptance", "benchmarks", "build"} & set(path.relative_to(ROOT).parts)
        for one in imports_of(path.read_text(encoding="utf-8"), "elsewhere.module", False)
        if one.module.split(".")[0] in plugins
    ]
    assert problems == []


def test_modules_have_no_cycle():
    graph: dict[str, set[str]] = {}
    modules = {"fitspike." + path.removesuffix(".py").replace("/", ".").removesuffix(".__init__"): path for path in files_of_package()}
    for module, path in modules.items():
        edges = graph.setdefault(module, set())
        for one in imports_of((PACKAGE / path).read_text(encoding="utf-8"), module, path.endswith("__init__.py")):
            if one.is_at_top and not one.is_for_types:
                target = one.module if one.module in modules else one.module.rpartition(".")[0]
                if target in modules and target != module:
                    edges.add(target)
    done: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module not in done:
            for target in sorted(graph[module]):
                walk(target, (*trail, module))
            done.add(module)

    for module in graph:
        walk(module, ())


WRONG = {
    "a lower layer imports a higher one": (order_problems, "kernels/x.py", "from fitspike.recording import binned"),
    "the same, inside a function": (order_problems, "params.py", "def f():\n    import fitspike.models.base"),
    "the same, relative": (order_problems, "kernels/densify/x.py", "from ...recording.binned import BinnedSpikes"),
    "a neighbour in the layer": (order_problems, "neurons/x.py", "from fitspike.statistics import rates"),
    "a type outside base.py": (order_problems, "neurons/x.py", "if TYPE_CHECKING:\n    from fitspike.models.base import Model"),
    "the plugin host reaches datasets": (order_problems, "plugin/x.py", "from fitspike.datasets.loading import load"),
    "a base module reaches its own higher package": (order_problems, "datasets/base.py", "from fitspike.datasets.loading import load"),
    "neo outside its reader": (third_party_problems, "recording/recording.py", "import neo"),
    "numba outside a kernel": (third_party_problems, "models/x.py", "def f():\n    from numba import njit"),
    "torch at the top of the command line": (third_party_problems, "cli/main.py", "import torch"),
    "torch at the top inside try": (third_party_problems, "params.py", "try:\n    import torch\nexcept ImportError:\n    pass"),
    "a plugin that reaches inside": (plugin_problems, "plugins/x/x.py", "from fitspike.params import ParamSpec"),
    "a plugin that reaches inside the host": (plugin_problems, "plugins/x/x.py", "from fitspike.plugin.registry import get_registry"),
}
RIGHT = {
    "a layer below": (order_problems, "recording/x.py", "from fitspike.kernels.densify import densify"),
    "types in base.py": (order_problems, "losses/base.py", "if TYPE_CHECKING:\n    from fitspike.learning.base import Batch"),
    "single modules of one layer": (order_problems, "params.py", "from fitspike.rng import Stream"),
    "the protocol of datasets": (order_problems, "plugin/x.py", "from fitspike.datasets.base import DataCard"),
    "torch inside a function": (third_party_problems, "params.py", "def f():\n    import torch"),
    "numba in a kernel": (third_party_problems, "kernels/densify/numba_cpu.py", "import numba"),
    "the public names": (plugin_problems, "plugins/x/x.py", "from fitspike import Recording\nfrom fitspike.plugin import hookimpl"),
}


@pytest.mark.parametrize(("check", "path", "source"), WRONG.values(), ids=WRONG)
def test_wrong_import_is_found(check, path, source):
    assert len(check(path, source)) == 1


@pytest.mark.parametrize(("check", "path", "source"), RIGHT.values(), ids=RIGHT)
def test_right_import_is_let_through(check, path, source):
    assert check(path, source) == []
