"""`elman export`: a model file as an ONNX file. What does it is `elman.onnx`, imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from elman import check
from elman.cli.common import reported


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--opset", type=int, default=22, help="Version of ONNX's operators.")
@click.option("--lengths", is_flag=True, show_default=False, help="Let the lengths of sequences be an input.")
@click.option("--states", is_flag=True, show_default=False, help="Let states go in and come out.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), help="Instead of the model's.")
@click.option("--scan", is_flag=True, show_default=False, help="Write a Scan, not the operator RNN.")
def export(model: Path, output: Path, **options: Any) -> None:
    """Write MODEL, a file that `save`, `fit` or `elman train` wrote, to OUTPUT as ONNX.

    What was there is replaced.
    """
    with reported():
        import elman.onnx

        if output.exists() and output.samefile(model):
            check.refuse(f"OUTPUT must be another file than MODEL, got {output} for both")
        elman.onnx.export(elman.load(model), output, **options)
