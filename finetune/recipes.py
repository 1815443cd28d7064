"""What each correction of the homework's recipe is worth: one change at a time.

    python -m finetune.recipes CONFIG [key=value …] [--only NAME …]

Fine-tunes as the homework does (``hw5``), then once for each of its ways with that one
corrected, then with all of them (``default``): same model, records, steps and seed. Each is a
run of its own under the configuration's ``output_dir``, as ``python -m finetune`` leaves it,
with ``timings.json``. ``tangeval run studies/recipes.yaml`` then says what they write.
"""

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tangeval.cli.entry import command
from tangeval.cli.progress import make_console
from tangeval.core.errors import TangevalError
from tangeval.results.files import exclusive_lock
from tangeval.results.records import read_record

from .__main__ import finetune
from .config import Config, load_config

#: Each correction by name: the keys that it changes.
CORRECTIONS: dict[str, dict[str, object]] = {
    "completion-only": {"loss_on": "completion"},
    "one-eos": {"eos": "once"},
    "real-mask": {"attention_mask": "real"},
    "dynamic-padding": {"padding": "longest"},
    "bfloat16": {"precision": "bfloat16"},
    "no-checkpointing": {"gradient_checkpointing": False},
    "saves": {"save_steps": 13, "save_total_limit": None},
    "learning-rate": {"learning_rate": 1e-3},
    "warm-up": {"warmup_steps": 7},
}
#: What is no correction, but what the homework would be had it left EOS as what pads.
SLIPS: dict[str, dict[str, object]] = {"eos-as-padding": {"eos": "masked"}}


def variants(file: Path, overrides: list[str]) -> dict[str, Config]:
    """Return every run's configuration by name, each with its own folder under ``output_dir``."""
    given = load_config(file, ["recipe=hw5", *overrides])
    if given.seeds:
        raise TangevalError(
            "seeds: each recipe is trained once here; python -m finetune trains one with several"
        )
    default = load_config(file, [*overrides, f"records={json.dumps(given.records)}", "recipe=default"])
    known = CORRECTIONS["learning-rate"] | CORRECTIONS["warm-up"] | CORRECTIONS["saves"]
    every = {"hw5": given} | {
        name: given.model_copy(update=keys) for name, keys in (CORRECTIONS | SLIPS).items()
    }
    every["default"] = default.model_copy(update=known | {"per_device_batch_size": default.batch})
    return {
        name: config.model_copy(update={"output_dir": f"{given.output_dir}/{name}"})
        for name, config in every.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.recipes", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("config", type=Path, help="a YAML file, such as finetune/configs/recipes.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of the runs")
    options = parser.parse_args()
    console = make_console()
    with command():
        every = variants(options.config, options.overrides)
        if unknown := set(options.only or ()) - set(every):
            raise TangevalError(f"--only: {', '.join(unknown)} is none of {', '.join(every)}")
        chosen = {name: every[name] for name in options.only or every}
        for name, config in chosen.items():
            console.print(name, style="bold")
            with exclusive_lock(Path(config.output_dir)):
                finetune(config, console)
        show(chosen, console)


def show(chosen: dict[str, Config], console: Console) -> None:
    table = Table("run", "validation loss (nats a token)", "seconds a step", "peak GiB")
    for name, config in chosen.items():
        said = read_record(Path(config.output_dir) / "timings.json") or {}
        keys = {"validation_loss": ".3f", "seconds_a_step": ".3f", "peak_gib": ".1f"}
        table.add_row(
            name, *("" if said.get(key) is None else f"{said[key]:{form}}" for key, form in keys.items())
        )
    console.print(table)


if __name__ == "__main__":
    main()
