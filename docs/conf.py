"""The documentation's pages: README, this folder and the results of the benchmarks, as a site (`make docs`)."""

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
# A page is read on GitHub too, where its first heading need not be of the first level.
suppress_warnings = ["myst.header"]
