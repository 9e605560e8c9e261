"""Builds the documentation: `sphinx-build -W -n docs docs/_build/html`, offline.

The examples are run, which takes some minutes, and their outputs and plots shown;
where their packages are not installed, or with `-t quick`, they are shown alone.
What has not changed since the last build into the same folder is not run again.
"""

import ast
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
    "bars",
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
plot_gallery = str(not tags.has("quick"))  # noqa: F821  (Sphinx defines it)


def can_run(example: Path) -> bool:
    """Whether all that it imports is installed, but for what it asks for by an `if`."""
    statements = ast.parse(example.read_text(encoding="utf-8")).body
    parts = [
        part
        for one in statements
        if not isinstance(one, ast.If)
        for part in ast.walk(one)
    ]
    names = [
        name.name for one in parts if isinstance(one, ast.Import) for name in one.names
    ]
    names += [one.module or "" for one in parts if isinstance(one, ast.ImportFrom)]
    return all(importlib.util.find_spec(name.partition(".")[0]) for name in names)


runnable = "|".join(
    path.stem for path in HERE.parent.glob("examples/*.py") if can_run(path)
)
thumbnail = HERE / "_build" / "thumbnail.svg"  # where an example has not been run
unrolled.write(thumbnail, "many-to-many")
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "examples",
    "filename_pattern": rf"\b({runnable})\.py$",
    "ignore_pattern": "a^",
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
