"""Sphinx's configuration. MyST reads Markdown as GitHub does, and gives headings GitHub's anchors."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

project = "speil"
author = copyright = "the authors of speil"
(release,) = re.findall(r'^__version__ = "(.+)"$', (ROOT / "src" / "speil" / "version.py").read_text(), re.MULTILINE)
extensions = ["myst_parser", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
nitpicky = True
highlight_language = "text"
smartquotes = False  # `--flag` in prose is not a dash
myst_heading_anchors = 6

html_theme = "furo"
html_title = f"speil {release}"
html_favicon = str(ROOT / "charts" / "speil" / "icon.svg")
html_static_path = [str(Path(__file__).parent / "static")]
html_css_files = ["site.css"]
html_copy_source = False
html_use_index = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
