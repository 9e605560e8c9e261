"""Builds the documentation: `sphinx-build -W -n docs docs/_build/html`, offline.

Examples are shown but not run; `-t plots` runs them, which takes some minutes,
and shows their plots.
"""

import importlib.util
import os
import sys
from pathlib import Path

import tqdm

import elman

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

import unrolled  # noqa: E402  (ours)

project = "elman"
author = "The elman developers"
copyright = "The elman developers"
version = release = elman.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "matplotlib.sphinxext.plot_directive",
    "mathml",
    "unrolled",
]
exclude_patterns = ["_build", "examples/*.ipynb", "examples/*.py.md5"]
nitpicky = True
smartquotes_action = "D"  # dashes only: quotes in types stay what they are
default_role = "py:obj"
nitpick_ignore_regex = [
    # `single backticks` in docstrings are links if there is something, code otherwise
    ("py:obj", ".*"),
    ("py:class", ".*"),  # types are in words: "integers (T, B)"
    ("py:exc", r"onnx\..*"),  # which has no inventory of its names
]

# Pages
myst_enable_extensions = [
    "amsmath",
    "attrs_inline",
    "colon_fence",
    "deflist",
    "dollarmath",
]
myst_heading_anchors = 3
html_math_renderer = "mathml"
copybutton_exclude = ".linenos, .gp, .go"  # prompts and outputs
plot_formats = ["svg"]
plot_html_show_formats = False
plot_html_show_source_link = False
plot_rcparams = {
    "svg.fonttype": "path",
    "figure.constrained_layout.use": True,
    "figure.figsize": (7, 3.5),
}
plot_apply_rcparams = True

# The reference
os.environ.setdefault("KERAS_BACKEND", "torch")
autodoc_mock_imports = [
    name for name in ("torch", "keras") if not importlib.util.find_spec(name)
]
autodoc_typehints = "none"  # docstrings say more: shapes
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_use_ivar = True

# Examples
tqdm.tqdm.display = lambda *_, **__: None  # on a page, a progress bar is many lines
plot_gallery = str(tags.has("plots"))  # noqa: F821  (Sphinx defines it)
thumbnail = HERE / "_build" / "thumbnail.svg"  # where an example has not been run
unrolled.write(thumbnail, "many-to-many")
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "examples",
    "filename_pattern": r"\.py$",
    "ignore_pattern": "/pytorch" if "torch" in autodoc_mock_imports else "a^",
    "download_all_examples": False,
    "show_signature": False,
    "min_reported_time": 10_000,
    "show_memory": False,
    "abort_on_example_error": True,
    "notebook_extensions": set(),
    "capture_repr": (),  # what a program prints is enough
    "remove_config_comments": True,
    "write_computation_times": False,
    "default_thumb_file": str(thumbnail),
    "within_subsection_order": "FileNameSortKey",
}

html_theme = "furo"
html_title = "elman"
html_static_path = ["_static"]
html_css_files = ["elman.css"]
html_copy_source = False
