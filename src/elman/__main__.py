"""`python -m elman` is the command `elman`."""

from elman.cli import main

main(prog_name="elman")
