"""How long a grid takes: the homework's loop, ``generate`` in batches, and tangeval's engine.

    python -m benchmarks.decode [--base tang-mini --checkpoint checkpoints/demo/checkpoint-76] …

One process, one model, the same prompts, cells and samples:
(a) the homework's way: ``generate``, one prompt and one setting at a time;
(b) ``generate`` for all prompts × samples of one setting at a time;
(c) tangeval's engine with a row for each stream;
(d) tangeval's engine.
(a) and (b) are timed on a random part, which the table states, and scaled. Prints a table and
writes JSON. The roofline floor is, for each step, the larger of bytes read ÷ measured copy
bandwidth and FLOPs ÷ measured matrix rate.
"""

import argparse
import json
import random
import resource
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from tangeval import dataset
from tangeval import model as models
from tangeval.checkpoint import discover, resolve_base
from tangeval.decoding.engine import Stream, decode
from tangeval.decoding.sampler import luck_key
from tangeval.prompt import encode_prompt
from tangeval.records import Cell, Load

TEMPERATURES = (
    0.1,
    0.4,
    0.7,
    1.0,
    1.3,
    0.2,
    0.3,
    0.5,
    0.6,
    0.8,
    0.9,
    1.1,
    1.2,
    1.4,
    1.5,
    1.6,
    1.7,
    1.8,
    1.9,
    2.0,
)
TOP_K, TOP_P = (0, 5, 50), (0.3, 0.6, 0.9, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decode", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--base", default="tang-mini")
    parser.add_argument("--checkpoint", default="checkpoints/demo/checkpoint-76")
    parser.add_argument("--data", default="sample")
    parser.add_argument("--quantization", default="none", choices=["none", "nf4", "int8"])
    parser.add_argument("--merge", action="store_true", help="for (c) and (d)")
    parser.add_argument("--cells", type=int, default=60, help="a multiple of 12")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=96)
    parser.add_argument("--loop", type=int, default=12, help="outputs that (a) is timed on; 0 leaves it out")
    parser.add_argument(
        "--batches", type=int, default=4, help="settings that (b) is timed on; 0 leaves it out"
    )
    parser.add_argument("--out", type=Path, default=Path("results/bench/decode.json"))
    options = parser.parse_args()
    report = measure(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    show(report)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Time the four ways and return what was found, in seconds, rows and bytes."""
    base, load = resolve_base(options.base), Load(options.quantization)
    tokenizer, bare = models.load_tokenizer(base), models.load_model(base, load)
    (checkpoint,), _ = discover([options.checkpoint])
    examples = dataset.load(options.data).split("test")
    prompts = [encode_prompt(tokenizer, example, "hw5") for example in examples]
    grid = list(product(TEMPERATURES[: options.cells // 12], TOP_K, TOP_P))
    cells = [Cell(*point, options.max_length) for point in grid]
    streams = [
        Stream(p, c.temperature, c.top_k, c.top_p, luck_key(42, e.id, s), c.max_length)
        for (p, e), c, s in product(enumerate(examples), cells, range(options.samples))
    ]
    luck = random.Random(0)
    report: dict[str, Any] = {
        "device": models.device().type if not torch.cuda.is_available() else torch.cuda.get_device_name(),
        "threads": torch.get_num_threads(), "torch": torch.__version__, "base": base.name,
        "quantization": options.quantization, "merge": options.merge, "prompts": len(prompts), "cells": len(cells),
        "samples": options.samples, "max_length": options.max_length, "outputs": len(streams), "ways": {},
    }  # fmt: skip
    ways = report["ways"]
    with models.with_checkpoint(bare, checkpoint, load) as model:
        eos = models.eos_ids(model, tokenizer)
        if options.loop:
            some = [luck.choice(streams) for _ in range(options.loop)]
            seconds = sum(timed(generated, model, [prompts[s.prompt]], s, eos)[0] for s in some)
            ways["a"] = {"seconds": seconds * len(streams) / len(some), "timed_on": f"{len(some)} outputs"}
        if options.batches:
            every = [p for p in prompts for _ in range(options.samples)]
            chosen = [
                Stream(0, c.temperature, c.top_k, c.top_p, 0, c.max_length)
                for c in luck.sample(cells, options.batches)
            ]
            seconds = sum(timed(generated, model, every, s, eos)[0] for s in chosen)
            ways["b"] = {"seconds": seconds * len(cells) / len(chosen), "timed_on": f"{len(chosen)} settings"}
    with models.with_checkpoint(bare, checkpoint, Load(options.quantization, merge=options.merge)) as model:
        decode(model, prompts, streams[:: len(streams) // 20], eos=eos, no_repeat_ngram_size=3)  # warm-up
        for name, share in (("c", False), ("d", True)):
            reset_peak()
            seconds, decoded = timed(
                decode, model, prompts, streams, eos=eos, no_repeat_ngram_size=3, share=share
            )
            ways[name] = {
                "seconds": seconds, "timed_on": "all", "rows": sum(decoded.rows), "peak_gib": peak_gib()
            }  # fmt: skip
        ways["d"]["steps"] = len(decoded.rows)
        ways["d"]["tokens"] = sum(map(len, decoded.tokens))
        floor = roofline(model, prompts, decoded.rows)
        ways["d"]["roofline_seconds"], ways["d"]["roofline_share"] = floor, floor / ways["d"]["seconds"]
    return report


def generated(model: Any, prompts: Sequence[Sequence[int]], stream: Stream, eos: Sequence[int]) -> Any:
    """What the homework calls: ``generate`` with one setting, its batch padded on the left."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    return model.generate(
        input_ids=ids, attention_mask=mask, do_sample=True, temperature=stream.temperature, top_k=stream.top_k,
        top_p=stream.top_p, max_new_tokens=stream.max_length, no_repeat_ngram_size=3, eos_token_id=list(eos),
        pad_token_id=0,
    )  # fmt: skip


def timed(work: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[float, Any]:
    """Return the seconds that a call takes, the GPU's included, and what it returns."""
    began = time.perf_counter()
    result = work(*arguments, **options)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began, result


def reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_gib() -> float:
    """Return the most memory held: the GPU's since ``reset_peak``; without one the process's, ever."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def roofline(model: Any, prompts: Sequence[Sequence[int]], rows: Sequence[int]) -> float:
    """Return the seconds that the machine's own rates allow for ``rows`` ``[steps]``, prompts first."""
    weights = [p for p in model.parameters() if p.dim() > 1]
    size = weights[-1].element_size()
    read, multiplied = sum(p.numel() * p.element_size() for p in weights), 2 * sum(p.numel() for p in weights)
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token = 2 * config.num_hidden_layers * heads * width * size  # bytes of a token's keys and values
    prompt = sum(map(len, prompts))
    bandwidth, rate = copy_bandwidth(model.device), matrix_rate(model.device, weights[-1].dtype)
    seconds = prompt * multiplied / rate
    for step, count in enumerate(rows[1:], 1):
        cache = (prompt + count * step) * token
        seconds += max((read + cache) / bandwidth, count * multiplied / rate)
    return seconds


def copy_bandwidth(device: torch.device) -> float:
    """Return bytes a second that a large copy moves, read and written."""
    source = torch.empty(2**27, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    seconds = min(timed(target.copy_, source)[0] for _ in range(5))
    return 2 * source.numel() * 4 / seconds


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return FLOPs a second of a large matrix product."""
    size = 8192 if device.type == "cuda" else 2048
    a = torch.randn(size, size, device=device).to(dtype if dtype.is_floating_point else torch.bfloat16)
    a @ a
    return 2 * size**3 / min(timed(torch.matmul, a, a)[0] for _ in range(5))


def show(report: dict[str, Any]) -> None:
    ways, names = report["ways"], {
        "a": "generate, one prompt, one setting", "b": "generate, one setting", "c": "tangeval, a row a stream",
        "d": "tangeval",
    }  # fmt: skip
    title = f"{report['outputs']:,} outputs of {report['base']} on {report['device']}"
    table = Table("way", "seconds", "(d) is faster by", "rows", "peak GiB", "timed on", title=title)
    for name, way in ways.items():
        times = f"{way['seconds'] / ways['d']['seconds']:.1f}×"
        rows, peak = (
            f"{way['rows']:,}" if "rows" in way else "",
            f"{way['peak_gib']:.2f}" if "peak_gib" in way else "",
        )
        table.add_row(f"({name}) {names[name]}", f"{way['seconds']:.1f}", times, rows, peak, way["timed_on"])
    console = Console(width=120)
    console.print(table)
    console.print(f"(d) reaches {ways['d']['roofline_share']:.0%} of the roofline floor", highlight=False)


if __name__ == "__main__":
    main()
