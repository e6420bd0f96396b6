"""Formulas of the documentation become MathML whole: a command that the converter does not know would be shown as its source."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
FENCE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<!\$)\$([^$]+)\$(?!\$)", re.DOTALL)
PAGES = [
    path for path in sorted(DOCS.rglob("*.md")) if "_build" not in path.parts and FORMULA.search(FENCE.sub("", path.read_text("utf-8")))
]


def test_there_are_formulas():
    assert {path.name for path in PAGES} >= {"concepts.md", "likelihood.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_every_formula_is_converted(page):
    convert = pytest.importorskip("latex2mathml.converter", reason="the extra docs is not installed").convert
    for found in FORMULA.finditer(FENCE.sub("", page.read_text(encoding="utf-8"))):
        formula = found[1] or found[2]
        assert "\\" not in convert(formula), formula
