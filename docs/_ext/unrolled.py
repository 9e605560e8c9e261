"""The directive `unrolled`: the graph of a pattern as SVG, a column for each step.

Its colours are those of the theme.

```{unrolled} many-to-one
```
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

RADIUS, COLUMN, ROW, MARGIN = 21, 76, 74, 34


class Graph(NamedTuple):
    """Which columns (time steps) have a node in which row. Columns count from 0."""

    n: int  # columns
    inputs: dict[int, str]
    outputs: dict[int, str]
    directions: int = 1
    feedback: bool = False  # from each output to the next column
    decoder: int | None = None  # the first column of the second network
    start: bool = True  # whether h[0] is drawn


def _steps(letter: str, columns: range, first: int = 1) -> dict[int, str]:
    return {t: f"{letter}[{i}]" for i, t in enumerate(columns, first)}


GRAPHS = {
    "many-to-many": Graph(4, _steps("x", range(4)), _steps("o", range(4))),
    "many-to-many-bidirectional": Graph(
        4, _steps("x", range(4)), _steps("o", range(4)), directions=2
    ),
    "many-to-one": Graph(4, _steps("x", range(4)), {3: "o"}),
    "one-to-one": Graph(1, {0: "x"}, {0: "o"}),
    "one-to-many": Graph(4, {0: "x"}, _steps("o", range(4)), feedback=True),
    "sequence-to-sequence": Graph(
        5,
        {**_steps("x", range(3)), 3: "start"},
        {3: "y[1]", 4: "end"},
        feedback=True,
        decoder=3,
    ),
}


def svg(name: str) -> str:
    """The drawing as text. Rows: outputs, states (two for two directions), inputs."""
    graph = GRAPHS[name]
    left = MARGIN + (COLUMN if graph.start else 0)
    x_of = [left + t * COLUMN for t in range(graph.n)]
    y_out, y_first = MARGIN, MARGIN + ROW
    states = [y_first + d * ROW for d in range(graph.directions)][
        ::-1
    ]  # forwards is the lower one
    y_in = states[0] + ROW
    width, height = (
        x_of[-1] + MARGIN + (COLUMN if graph.directions == 2 else 0),
        y_in + MARGIN,
    )
    parts: list[str] = []

    def node(x: float, y: float, text: str, kind: str) -> None:
        parts.append(f'<circle class="{kind}" cx="{x}" cy="{y}" r="{RADIUS}"/>')
        parts.append(f'<text x="{x}" y="{y + 4}">{text}</text>')

    def arrow(x1: float, y1: float, x2: float, y2: float, kind: str = "edge") -> None:
        length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
        dx, dy = (x2 - x1) / length * RADIUS, (y2 - y1) / length * RADIUS
        parts.append(
            f'<line class="{kind}" x1="{x1 + dx:.1f}" y1="{y1 + dy:.1f}" '
            f'x2="{x2 - 1.3 * dx:.1f}" y2="{y2 - 1.3 * dy:.1f}" '
            f'marker-end="url(#tip-{name})"/>'
        )

    def curve(path: str, kind: str = "edge") -> None:
        parts.append(f'<path class="{kind}" d="{path}" marker-end="url(#tip-{name})"/>')

    for d, y in enumerate(states):
        letter = "h" if graph.directions == 1 else "hg"[d]
        first = left - COLUMN if d == 0 else x_of[-1] + COLUMN
        node(
            first,
            y,
            f"{letter}[0]" if d == 0 else f"{letter}[{graph.n + 1}]",
            "state start",
        )
        columns = x_of if d == 0 else x_of[::-1]
        for before, after in zip([first, *columns], columns, strict=False):
            arrow(before, y, after, y)
        for t, x in enumerate(x_of):
            if graph.decoder is not None and t >= graph.decoder:
                node(x, y, f"s[{t - graph.decoder + 1}]", "state second")
            else:
                node(x, y, f"{letter}[{t + 1}]", "state")
    for t, text in graph.inputs.items():
        node(x_of[t], y_in, text, "input")
        arrow(x_of[t], y_in, x_of[t], states[0])
        if graph.directions == 2:
            x, bow = x_of[t] - 15, x_of[t] - RADIUS - 12  # around the lower state
            curve(
                f"M {x} {y_in - 15} C {bow} {states[0] + 30}, "
                f"{bow} {states[0] - 30}, {x - 3} {states[1] + 20}"
            )
    for t, text in graph.outputs.items():
        node(x_of[t], y_out, text, "output")
        arrow(x_of[t], states[-1], x_of[t], y_out)
        if graph.directions == 2:
            x, bow = x_of[t] + 15, x_of[t] + RADIUS + 12  # around the upper one
            curve(
                f"M {x} {states[0] - 15} C {bow} {states[1] + 30}, "
                f"{bow} {states[1] - 30}, {x + 3} {y_out + 20}"
            )
    if graph.feedback:
        ts = sorted(graph.outputs)
        for t in ts[:-1]:
            node(x_of[t + 1], y_in, graph.outputs[t], "input fed")
            arrow(x_of[t + 1], y_in, x_of[t + 1], states[0])
            x1, x2 = x_of[t] + RADIUS, x_of[t + 1] - 1.3 * RADIUS
            middle = (x_of[t] + x_of[t + 1]) / 2
            curve(
                f"M {x1} {y_out + 3} C {middle + 6} {y_out + 10}, "
                f"{middle} {y_out + 30}, {middle} {states[0]} "
                f"S {middle - 4} {y_in - 8}, {x2:.1f} {y_in - 3}",
                "back",
            )
    marker = (
        f'<defs><marker id="tip-{name}" viewBox="0 0 8 8" refX="4" refY="4" '
        'markerWidth="7" markerHeight="7" orient="auto-start-reverse">'
        '<path d="M 0 0 L 8 4 L 0 8 z" class="tip"/></marker></defs>'
    )
    return (
        f'<svg class="unrolled" role="img" aria-label="Unrolled graph: {name}" '
        f'viewBox="0 0 {width} {height}" style="max-width: {width}px" '
        f'xmlns="http://www.w3.org/2000/svg">{marker}{"".join(parts)}</svg>\n'
    )


def write(path: Path, name: str) -> None:
    """The drawing as a file, which no theme gives its colours."""
    style = (
        "circle { fill: #f8f9fb; stroke: #5a5c63; stroke-width: 1.6 } "
        "circle.state { stroke: #0a4bff } circle.output { stroke: #d9822b } "
        ".edge, .back { stroke: #5a5c63; stroke-width: 1.4; fill: none } "
        ".tip { fill: #5a5c63 } text { font: 13px sans-serif; text-anchor: middle }"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        svg(name).replace("<defs>", f"<style>{style}</style><defs>"), encoding="utf-8"
    )


class Unrolled(SphinxDirective):
    required_arguments = 1
    option_spec = {"class": directives.class_option}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", svg(self.arguments[0]), format="html")]


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("unrolled", Unrolled)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
