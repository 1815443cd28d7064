"""What a step of fine-tuning takes of a GPU, and which micro batches a card of 16 or 24 GB holds.

    python -m benchmarks.finetune finetune/configs/breeze-7b.yaml [key=value …]

One model, loaded once. For each micro batch, with and without gradient checkpointing: the
longest records of the data, forward, backward, and the optimiser's step. Prints a table and
writes JSON: peak memory set aside, and seconds a record.
"""

import gc
import json
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.command import command_line
from finetune.config import load_config
from finetune.data import collate, layout_of, summed_loss, tokenize
from finetune.packing import keep_apart
from finetune.train import adapted
from tangeval.models.checkpoints import resolve_base
from tangeval.models.loading import load_tokenizer
from tangeval.results.files import write_json
from tangeval.tasks.tang import data as dataset

MICRO = (1, 2, 4, 8, 16)
#: GiB that a card of so many GB has for a program, by what drivers leave of it.
CARDS = {"16 GB": 14.5, "24 GB": 22.0, "80 GB": 78.0}


def main() -> None:
    parser = command_line(__file__, __doc__, out=True)
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args()
    config = load_config(options.config, [*options.overrides, "gradient_checkpointing=true"])
    base = resolve_base(config.base_model, config.cache_dir)
    tokenizer = load_tokenizer(base)
    layout = layout_of(config, tokenizer)
    rows, _ = tokenize(tokenizer, dataset.load(config.data).split("train"), config.prompt or "hw5", layout)
    longest = sorted(rows, key=lambda row: -len(row["input_ids"]))[: max(MICRO)]
    model = adapted(config, base)
    model.enable_input_require_grads()
    found = []
    for checkpointing, micro in product((True, False), MICRO):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            model.gradient_checkpointing_disable()
        try:
            row = step(model, collate(longest[:micro], layout))
        except torch.OutOfMemoryError:
            row = {"peak_gib": None, "seconds_a_record": None}
        found.append({"per_device_batch_size": micro, "gradient_checkpointing": checkpointing} | row)
        print(json.dumps(found[-1]), flush=True)
    report = {
        "device": torch.cuda.get_device_name(), "base": base.name, "recipe": config.recipe,
        "tokens": len(longest[0]["input_ids"]), "steps": found,
    }  # fmt: skip
    write_json(options.out, report)
    show(report)


def step(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, float]:
    """Train on one batch twice; return the peak memory and the second time's seconds a record."""
    model.train()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0)
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    labels, batch = batch.pop("labels"), keep_apart(batch, model.config)
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            logits = model(**batch, use_cache=False).logits
        (summed_loss(logits, labels) / len(labels)).backward()
        optimizer.step()
        optimizer.zero_grad()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    return {
        "peak_gib": torch.cuda.max_memory_reserved() / 2**30, "seconds_a_record": seconds / len(labels)
    }  # fmt: skip


def show(report: dict[str, Any]) -> None:
    console = Console(width=100)
    title = f"{report['base']} on {report['device']}, records of up to {report['tokens']} tokens"
    table = Table(
        "micro batch", "gradient checkpointing", "peak GiB", "seconds a record", "fits", title=title
    )
    for row in report["steps"]:
        peak = row["peak_gib"]
        fits = next((card for card, room in CARDS.items() if peak and peak <= room), "none")
        told = ("", "") if peak is None else (f"{peak:.1f}", f"{row['seconds_a_record']:.3f}")
        table.add_row(
            str(row["per_device_batch_size"]), "yes" if row["gradient_checkpointing"] else "no", *told, fits
        )
    console.print(table)


if __name__ == "__main__":
    main()
