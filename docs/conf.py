"""Sphinx configuration: `make docs` builds docs/_build/html and stops at any warning."""

import importlib.metadata

project = "pilotzone"
author = "The pilotzone authors"
copyright = "the pilotzone authors, Apache-2.0"
version = release = importlib.metadata.version("pilotzone")

extensions = ["myst_nb"]
exclude_patterns = ["_build", "jupyter_execute"]
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
# Mermaid diagrams are drawn where Markdown is shown directly; here they are shown as their source.
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = "pilotzone"
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0072B2", "color-brand-content": "#0072B2"},
    "dark_css_variables": {"color-brand-primary": "#56B4E9", "color-brand-content": "#56B4E9"},
}
