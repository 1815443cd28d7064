"""What packing brings: a step of fine-tuning on packed and on padded texts, by turns, in one run.

    python -m benchmarks.packing finetune/configs/demo.yaml [key=value …]

One model, loaded once. Each step trains on the same records both ways, so company on the machine disturbs
both alike. Prints and writes JSON: the median seconds of each, their ratio, and the largest difference of the
losses. Without a GPU seconds are the processor's own.
"""

import json
import random
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.command import command_line
from finetune.config import Config, load_config
from finetune.data import Layout, collate, layout_of, summed_loss, tokenize
from finetune.packing import IGNORED, keep_apart
from finetune.train import adapted, arguments, fix_seeds
from tangeval.models.checkpoints import resolve_base
from tangeval.models.loading import load_tokenizer
from tangeval.results.files import write_json
from tangeval.tasks.tang import data as dataset

WAYS = ("longest", "packed")


def main() -> None:
    parser = command_line(__file__, __doc__, out=True)
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    found = measured(load_config(options.config, [*options.overrides, "lora.dropout=0"]), options.steps)
    write_json(options.out, found)
    print(json.dumps(found, indent=2))


def measured(config: Config, steps: int) -> dict[str, Any]:
    """Return the seconds a step of each way, their ratio, and how far the losses are apart, in nats a token."""
    on_gpu = torch.cuda.is_available()
    settings = arguments(config)
    fix_seeds(config.seed)
    base = resolve_base(config.base_model, config.cache_dir)
    tokenizer = load_tokenizer(base)
    layouts = {way: replace(layout_of(config, tokenizer), padding=way) for way in WAYS}
    rows = list(
        tokenize(
            tokenizer, dataset.load(config.data).split("train"), config.prompt or "hw5", layouts["packed"]
        )[0]
    )
    model = adapted(config, base).train()
    learnt = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=0.0, fused=True)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    peak, apart = dict.fromkeys(WAYS, 0.0), 0.0
    for number in range(-2, steps):
        records = random.sample(rows, config.batch)
        losses = []
        for way in WAYS:
            if on_gpu:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter() if on_gpu else time.process_time()
            losses.append(step(model, records, config.per_device_batch_size, layouts[way], settings.bf16))
            torch.nn.utils.clip_grad_norm_(learnt, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if on_gpu:
                torch.cuda.synchronize()
                peak[way] = max(peak[way], torch.cuda.max_memory_allocated() / 2**30)
            if number >= 0:  # the first two are for warming up
                seconds[way].append((time.perf_counter() if on_gpu else time.process_time()) - began)
        apart = max(apart, abs(losses[0] - losses[1]))
    middle = {way: statistics.median(taken) for way, taken in seconds.items()}
    return {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu", "base": base.name, "batch": config.batch,
        "per_device_batch_size": config.per_device_batch_size, "steps": steps, "seconds_a_step": middle,
        "ratio": middle["longest"] / middle["packed"], "losses_apart": apart, "peak_gib": peak if on_gpu else None,
    }  # fmt: skip


def step(model: Any, records: list[Any], micro: int, layout: Layout, bfloat16: bool) -> float:
    """Add up the gradients of a batch in micro batches; return its loss, in nats a token."""
    total, tokens = 0.0, sum(label != IGNORED for row in records for label in row["labels"])
    for begin in range(0, len(records), micro):
        batch = collate(records[begin : begin + micro], layout)
        batch = keep_apart({name: tensor.to(model.device) for name, tensor in batch.items()}, model.config)
        labels = batch.pop("labels")
        with torch.autocast(model.device.type, torch.bfloat16, enabled=bfloat16):
            loss = summed_loss(model(**batch, use_cache=False).logits, labels) / tokens
        loss.backward()
        total += float(loss.detach())
    return total


if __name__ == "__main__":
    main()
