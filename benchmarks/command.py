"""The command line that benchmarks share.

In: a benchmark's file and docstring. Out: a parser, to which it adds what is its own.
"""

import argparse
from pathlib import Path


def command_line(
    file: str, doc: str | None, *, quick: str = "", out: bool = False
) -> argparse.ArgumentParser:
    """Return a parser named as the benchmark; ``quick`` is what ``--quick`` makes fewer of, ``out`` whether it writes JSON."""
    name = Path(file).stem
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=(doc or "").split("\n")[0]
    )
    if quick:
        parser.add_argument("--quick", action="store_true", help=f"a tenth of the {quick}")
    if out:
        parser.add_argument("--out", type=Path, default=Path(f"results/bench/{name}.json"))
    return parser
