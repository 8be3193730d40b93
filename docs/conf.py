"""Sphinx settings of the documentation site (`make docs`): README, this folder and the benchmark results."""

project = "artsel-ray"
author = "the artsel-ray developers"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "benchmarks/results/*.md", "cluster/*.md", "adapters/*/README.md"]
html_theme = "furo"
html_title = "artsel-ray"
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
# Pages are also read on GitHub, where the first heading may have any level.
suppress_warnings = ["myst.header"]
