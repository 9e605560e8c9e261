"""The pictures of the documentation's first page, from the plots of two examples: `python tools/pictures.py`.

What an example draws is cut to a part, made smaller, and left with 64 colours: 28 kB instead of 470.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image  # which matplotlib needs

ROOT = Path(__file__).parent.parent
PARTS = {"flipflop": (0.5, 0, 1, 1), "forecast": (0, 0, 1, 1)}  # of width and height: left, top, right, bottom
HEIGHT = 480


def shrink(plot: Path, part: tuple[float, float, float, float], to: Path) -> None:
    with Image.open(plot) as image:
        sides = image.width, image.height, image.width, image.height
        cut = image.convert("RGB").crop(tuple(round(p * n) for p, n in zip(part, sides, strict=True)))
    small = cut.resize((round(HEIGHT * cut.width / cut.height), HEIGHT), Image.Resampling.LANCZOS)
    few = small.quantize(64, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(to, optimize=True)


def main() -> None:
    for name, part in PARTS.items():
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "MPLBACKEND": "agg"}
            subprocess.run([sys.executable, ROOT / "examples" / f"{name}.py"], cwd=folder, env=environment, check=True)
            shrink(Path(folder, f"{name}.png"), part, ROOT / "docs" / f"{name}.png")


if __name__ == "__main__":
    main()
