"""Sphinx settings. The pages of commands, of components and of the plugin interface are written from the code before each build."""

from __future__ import annotations

import sys
from pathlib import Path

import fitspike

sys.path.insert(0, str(Path(__file__).parent / "_tools"))

project = "fitspike"
author = "The fitspike developers"
copyright = "The fitspike developers, BSD-3-Clause"
release = version = fitspike.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "mathml"]
myst_enable_extensions = ["dollarmath", "deflist", "fieldlist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]
nitpicky = False
exclude_patterns = ["_build", "_tools", "examples"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_rtype = False

html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"fitspike {release}"
html_show_sourcelink = False


def setup(app: object) -> None:
    """Write the generated pages."""
    import command_pages
    import component_pages
    import interface_pages

    command_pages.write_page(Path(__file__).parent)
    component_pages.write_page(Path(__file__).parent)
    interface_pages.write_page(Path(__file__).parent)
