"""``python -m finetune CONFIG.yaml [key=value …]``"""

import argparse
import os
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from finetune.config import Config, load_config
from finetune.run import prepare
from tangeval.cli.progress import Shown, quieten
from tangeval.core.errors import TangevalError
from tangeval.core.untrusted import inert
from tangeval.results.files import alone


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m finetune",
        description="Fine-tune with LoRA; leaves checkpoints, training_log.csv, loss.png and train_ids.json.",
        epilog="The same command goes on where a run was cut off.",
    )
    parser.add_argument("config", type=Path, help="a YAML file, such as finetune/configs/demo.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as learning_rate=1e-3")
    parser.add_argument("--overwrite", action="store_true", help="delete another run's checkpoints")
    options = parser.parse_args()
    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started
    console = Shown(width=None if sys.stdout.isatty() else 120, quiet=not first)
    quieten()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops as Ctrl-C does
    try:
        config = load_config(options.config, options.overrides)
        with alone(Path(config.output_dir)) if first else nullcontext():
            finetune(config, console, overwrite=options.overwrite, first=first)
    except TangevalError as error:
        print(inert(f"error: {error}"), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the newest checkpoint", file=sys.stderr)
        sys.exit(130)


def finetune(config: Config, console: Console, *, overwrite: bool = False, first: bool = True) -> None:
    """Fine-tune as ``config`` says, or say that this was done; ``first`` of several processes alone writes."""
    with _in_turn():
        run = prepare(config, overwrite=overwrite, first=first)
    if run.complete():
        console.print(f"{run.folder} is complete already: nothing to do", highlight=False)
        return
    # torch takes seconds to import, and a complete run needs none of it.
    from finetune.train import train

    console.print(
        f"{run.base.name} on {len(run.examples)} poems of {config.data}, {config.epochs:g} epochs in batches "
        f"of {config.batch}",
        highlight=False,
    )
    train(config, run, console)
    console.print(f"checkpoints, training_log.csv and loss.png are in {run.folder}", highlight=False)


def _in_turn() -> AbstractContextManager[Any]:
    """Let the first of torchrun's processes make the folder ready before the others look at it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return nullcontext()
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available()).main_process_first()


if __name__ == "__main__":
    main()
