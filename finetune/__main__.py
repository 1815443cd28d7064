"""``python -m finetune CONFIG.yaml [key=value …]``; once installed, ``python -m tangeval.finetune``."""

import argparse
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from tangeval.cli.entry import command
from tangeval.cli.progress import make_console
from tangeval.core.libraries import needs
from tangeval.core.words import speaking
from tangeval.results.files import exclusive_lock

from .config import Config, load_config
from .run import Run, check_same, prepare
from .seeds import train_seeds


def main() -> None:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}",
        description="Fine-tune with LoRA; leaves checkpoints, training_log.csv, loss.png and train_ids.json.",
        epilog="The same command goes on where a run was cut off.",
    )
    parser.add_argument("config", type=Path, help="a YAML file, such as finetune/configs/demo.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as learning_rate=1e-3")
    parser.add_argument("--overwrite", action="store_true", help="move another run's checkpoints aside")
    parser.add_argument("--dry-run", action="store_true", help="say what the run would be, and stop")
    options = parser.parse_intermixed_args()
    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started
    with command(), speaking():
        config = load_config(options.config, options.overrides)
        if options.dry_run:
            return dry_run(config, make_console(quiet=not first), overwrite=options.overwrite)
        if config.seeds:
            return train_seeds(
                [sys.executable, "-m", str(__package__), *sys.argv[1:]], config, make_console()
            )
        with exclusive_lock(Path(config.output_dir)) if first else nullcontext():
            finetune(config, make_console(quiet=not first), overwrite=options.overwrite, first=first)
        if _several():
            from accelerate import PartialState

            PartialState().destroy_process_group()


def finetune(config: Config, console: Console, *, overwrite: bool = False, first: bool = True) -> None:
    """Fine-tune as ``config`` says, unless that was done; of several processes only the ``first`` writes."""
    with needs("fine-tuning", "train"), _first_process_first():
        run = prepare(config, overwrite=overwrite, first=first)
    if run.complete():
        console.print(f"{run.folder} is complete already: nothing to do", highlight=False)
        return
    with needs("fine-tuning", "train"):  # torch takes seconds to import, and a complete run needs none of it
        from .train import train

    console.print(describe(config, run), highlight=False)
    train(config, run, console)
    console.print(f"checkpoints, training_log.csv and loss.png are in {run.folder}", highlight=False)


def dry_run(config: Config, console: Console, *, overwrite: bool = False) -> None:
    """Say what the run would be; nothing is written."""
    with needs("fine-tuning", "train"):
        from .dry_run import each_seed, plan
    if config.seeds:
        console.print(
            f"a run for each seed of {', '.join(map(str, config.seeds))}, the first:", highlight=False
        )
    run = prepare(each_seed(config), first=False)
    if not overwrite:
        check_same(run)
    console.print(describe(config, run), highlight=False)
    for line in plan(each_seed(config), run, overwrite=overwrite):
        console.print(line, highlight=False, markup=False)


def describe(config: Config, run: Run) -> str:
    """Return a run's base model, texts, epochs and batch in words."""
    what = f"{len(run.examples)} texts of {run.task.name if run.task.digest else config.data}"
    return f"{run.base.name} on {what}, epochs: {config.epochs:g}, texts in a batch: {config.batch}"


def _several() -> bool:
    """Whether torchrun started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _first_process_first() -> AbstractContextManager[Any]:
    """Let the first of torchrun's processes make the folder ready before the others look at it."""
    if not _several():
        return nullcontext()
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available()).main_process_first()


if __name__ == "__main__":
    main()
