"""Every causal-LM class of the installed transformers through the engine: the table of docs/reliability.md.

python -m tests.matrix [KIND ...] prints what becomes of each; without kinds it writes the table too.
Exit code 1 says that texts or likelihoods differ and that nothing was said of it.
"""

import logging
import sys
import time
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
import transformers

from tests.support.architectures import Outcome, kinds, outcome

TABLE = Path("docs/reliability.md")
BEGIN, END = "<!-- make matrix -->\n", "<!-- end of make matrix -->\n"


def main() -> None:
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity(logging.CRITICAL)
    found, began = [], time.monotonic()
    for kind in sys.argv[1:] or kinds():
        found.append(outcome(kind))
        print(found[-1].row(), flush=True)
    if not sys.argv[1:]:
        before, rest = TABLE.read_text("utf-8").split(BEGIN)
        table = written(found, time.monotonic() - began)
        TABLE.write_text(before + BEGIN + table + END + rest.split(END)[1], "utf-8")
    sys.exit(any("differ" in one.result for one in found))


def written(found: Iterable[Outcome], seconds: float) -> str:
    """Return the table and a line of what it counts."""
    found = list(found)
    equal, refused, none = (
        sum(o.result.startswith(w) for o in found) for w in ("equal", "refused", "none made")
    )
    shared = sum(one.way.startswith("rows shared") for one in found)
    head = (
        f"transformers {transformers.__version__}, torch {torch.__version__}, {seconds / 60:.0f} minutes: of {len(found)} model "
        f"types {equal} are equal, {shared} of them with shared rows; {refused} are refused by name; of {none} none could be "
        "made tiny.\n\n| model type | class | rows, prompts | outcome |\n| --- | --- | --- | --- |\n"
    )
    return head + "".join(one.row() + "\n" for one in found)


if __name__ == "__main__":
    main()
