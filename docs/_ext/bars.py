"""The directive `bars`: elman's part of a peer's time, from a table of performance.md.

Its text is what the title of the table begins with. `section` is the heading above it,
`column` the one with the ratios.

```{bars} training step: tokens, softmax cross-entropy, clipping
:section: On two cores with AVX2
:column: over torch
```
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

PAGE = Path(__file__).parent.parent / "performance.md"
BACKEND = "cython"  # the default one; the other differs by a few per cent


def table(text: str, section: str, title: str) -> list[dict[str, str]]:
    """Rows, by the names of the columns."""
    below = text.split(f"\n## {section}\n")[1].split("\n## ")[0]
    lines = below.split(f"\n**{title}")[1].split("\n|", 1)[1].split("\n\n")[0]
    head, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines.split("\n")
    )
    return [dict(zip(head, row, strict=True)) for row in rows]


def bar(row: dict[str, str], column: str) -> str:
    n_steps, n_rows, _, n_units = next(iter(row.values())).split(",")[:4]
    ratio = float(row[column].rstrip("×"))
    name = f"{n_rows} × {n_steps}, {n_units} units"
    share = min(100 / ratio, 100)
    return (
        f'<tr><th scope="row">{name}</th>'
        f'<td><div><span style="width: {share:.1f}%"></span></div></td>'
        f"<td>{ratio:.1f}×</td></tr>"
    )


class Bars(SphinxDirective):
    required_arguments = 1
    final_argument_whitespace = True
    option_spec = {  # noqa: RUF012
        "section": directives.unchanged_required,
        "column": directives.unchanged_required,
    }

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(PAGE))
        column = self.options["column"]
        rows = table(
            PAGE.read_text(encoding="utf-8"),
            self.options["section"],
            self.arguments[0],
        )
        peer = {"torch": "PyTorch"}.get(name := re.sub("^over ", "", column), name)
        caption = (
            f"Bar: elman's part of {html.escape(peer)}'s time, which is the whole "
            "width. Left: sequences × steps, hidden units; right: times as fast."
        )
        drawn = "".join(bar(row, column) for row in rows if row["backend"] == BACKEND)
        text = (
            f'<table class="bars"><caption>{caption}</caption>'
            f"<tbody>{drawn}</tbody></table>\n"
        )
        return [nodes.raw("", text, format="html")]


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("bars", Bars)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
