"""How long a grid takes: the homework's loop, ``generate`` in batches, and tangeval's engine.

    python -m benchmarks.decode [--base tang-mini --checkpoint checkpoints/demo/checkpoint-38] …

One process, one model, the same prompts, settings and samples:
(a) the homework's way: ``generate``, one prompt and one setting at a time;
(b) ``generate`` for all prompts × samples of one setting at a time;
(c) tangeval's engine with a row for each sequence;
(d) tangeval's engine.
(a) and (b) are timed on a random part, which the table states, and scaled. (d) runs twice: the
first time on a GPU records its steps, which later batches and checkpoints use again. ``--growth``
times (d) for ever more settings, samples and checkpoints, ``--beams N`` searches of N beams and contrast with the
base model beside N samples, ``--texts`` counts the texts that other
batches, merging and float32 leave the same, ``--profile`` says which kernels take the first batch's time.

Prints tables and writes JSON. The roofline floor is, for each step, the larger of bytes read ÷
measured copy bandwidth and FLOPs ÷ measured matrix rate.
"""

import argparse
import json
import random
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.command import command_line
from tangeval.core.knobs import Setting
from tangeval.core.types import Checkpoint, Example, Load
from tangeval.decoding.batch import Workspace
from tangeval.decoding.contrast import Reader
from tangeval.decoding.decoder import TokenSequence, decode
from tangeval.decoding.noise import noise_key
from tangeval.decoding.shared_prefix import bare
from tangeval.models import loading as models
from tangeval.models.adapters import with_checkpoint
from tangeval.models.checkpoints import discover, resolve_base
from tangeval.models.tokens import encode_prompt
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang.prompt import asked

#: The first five are the table's; the others lie between them, so that a larger grid is a denser one.
TEMPERATURES = (
    0.1, 0.4, 0.7, 1.0, 1.3, 0.15, 0.2, 0.25, 0.3, 0.5, 0.55, 0.6, 0.8, 0.85, 0.9, 0.95, 1.05, 1.1, 1.15, 1.2,
)  # fmt: skip
TOP_K = (0, 5, 50)
TOP_P = (0.3, 0.6, 0.9, 1.0)
MORE_TOP_P = (0.2, 0.25, 0.35, 0.4, 0.45, 0.5, 0.55, 0.65, 0.7, 0.75, 0.8, 0.85)
_CPU_BATCH = 3600  # sequences; a study plans its batches for 2 GiB
NAMES = {
    "a": "generate, one prompt, one setting", "b": "generate, one setting", "c": "tangeval, a row a sequence",
    "d": "tangeval",
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """What is decoded: prompts as token ids, the settings and samples, and on which machine."""

    examples: Sequence[Example]
    prompts: Sequence[Sequence[int]]
    max_length: int
    eos: Sequence[int]

    def sequences(self, settings: int, samples: int) -> list[TokenSequence]:
        """``settings`` settings × prompts × samples."""
        return [
            TokenSequence(p, setting.changed(max_length=self.max_length), noise_key(42, example.id, sample))
            for (p, example), setting, sample in product(
                enumerate(self.examples), grid(settings), range(samples)
            )
        ]


def main() -> None:
    parser = command_line(__file__, __doc__, out=True)
    add = parser.add_argument
    add("--base", default="tang-mini")
    add("--checkpoint", default="checkpoints/demo/checkpoint-38")
    add("--data", default="sample")
    add("--quantization", default="none", choices=["none", "nf4", "int8"])
    add("--merge", action="store_true", help="merged weights for (c) and (d)")
    add("--compile", action="store_true", help="compiled layers for (c) and (d)")
    add("--settings", type=int, default=60, choices=[12, 24, 36, 48, 60, 120, 123, 240, 960])
    add("--samples", type=int, default=4)
    add("--max-length", type=int, default=96)
    add("--loop", type=int, default=12, help="outputs that (a) is timed on; 0 leaves it out")
    add("--batches", type=int, default=4, help="settings that (b) is timed on; 0 leaves it out")
    add("--only-d", action="store_true", help="leave (c) out")
    add("--batch", type=int, help="sequences a batch; by default all on a GPU, halved until they fit")
    add("--memory-gib", type=float, help="the GPU memory that (c) and (d) may take")
    add("--growth", action="store_true", help="time (d) for 1, 4, 16 times as much")
    add(
        "--beams",
        type=int,
        default=0,
        help="time searches of so many beams, and contrast, beside as many samples",
    )
    add("--texts", action="store_true", help="compare the texts of other ways to compute the same")
    add("--profile", action="store_true", help="name the kernels that (d)'s first batch spends its time in")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for report in measure(options):
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    show(report)


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Time the four ways and yield what was found so far, in seconds, rows and bytes."""
    base, load = resolve_base(options.base), Load(options.quantization)
    fast = Load(options.quantization, merge=options.merge, compile=options.compile)
    tokenizer = models.load_tokenizer(base)
    (checkpoint,), _ = discover([options.checkpoint])
    examples = dataset.load(options.data).split("test")
    prompts = [encode_prompt(tokenizer, asked(example, "hw5")) for example in examples]
    model = models.load_model(base, load)
    say(f"loaded {base.name}")
    task = Task(examples, prompts, options.max_length, models.eos_ids(model, tokenizer))
    sequences = task.sequences(options.settings, options.samples)
    counted = {"base": base.name, "prompts": len(prompts), "outputs": len(sequences)}
    report: dict[str, Any] = asked_for(options) | counted | {"ways": {}}
    if options.loop or options.batches:
        with with_checkpoint(model, checkpoint, load) as adapted:
            report["ways"] |= time_generate(adapted, task, sequences, options)
        del adapted
        yield report
    if fast.merge and fast.quantization != "none":
        del model
        torch.cuda.empty_cache()
        model = models.load_model(base, fast)
    if options.memory_gib:
        hold(options.memory_gib)
    workspace = Workspace(compile=fast.compile)
    with with_checkpoint(model, checkpoint, fast) as adapted:
        few = sequences[:: max(1, len(sequences) // 20)]  # libraries and kernels wake up
        decode(adapted, task.prompts, few, eos=task.eos)
        first, batches = plan(adapted, task, sequences, workspace, options.batch)
        say(f"(d) {first:.1f} s the first time, in {len(batches)} batches")
        report |= {"first_seconds": first, "sequences_a_batch": len(batches[0])}
        texts = time_engine(adapted, task, batches, workspace, report, options)
        yield report
        if options.profile:
            report["profile"] = profiled(run, adapted, task, batches[:1], workspace)
        if options.beams:
            report["searches"] = dict(time_searches(adapted, models.load_model(base, fast), task, options))
    del adapted
    workspace.clear()
    yield report
    if options.growth:
        for kind, row in grow(model, checkpoint, fast, task, options, len(batches[0])):
            report.setdefault("growth", {}).setdefault(kind, []).append(row)
            yield report
    if options.texts:
        for name, found in compare_texts(base, model, checkpoint, fast, task, batches, texts):
            report.setdefault("texts", {})[name] = found
            yield report


def hold(gib: float) -> None:
    """Let this process take no more of the GPU's memory."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(gib * 2**30 / total)


def asked_for(options: argparse.Namespace) -> dict[str, Any]:
    """On what and with which options it is measured."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    names = ("quantization", "merge", "compile", "settings", "samples", "max_length")
    machine = {"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__}
    return machine | {name: getattr(options, name) for name in names}


#: Cuts of six families, each at three temperatures.
FAMILIES: dict[str, tuple[float, ...]] = {
    "min_p": (0.02, 0.05, 0.1, 0.2, 0.3), "top_n_sigma": (0.5, 1.0, 1.5, 2.0), "top_h": (0.2, 0.4, 0.6, 0.8),
    "epsilon_cutoff": (3e-4, 9e-4, 3e-3), "eta_cutoff": (3e-4, 9e-4, 3e-3), "typical_p": (0.2, 0.9),
}  # fmt: skip


def grid(settings: int) -> list[Setting]:
    """``settings`` settings of temperature, top-k and top-p, the smaller grid a part of the larger; 123 are 60 and ``FAMILIES``."""
    if settings == 123:
        cuts = [(name, value) for name, values in FAMILIES.items() for value in values]
        more = [{"temperature": t, name: value} for t in (0.4, 0.7, 1.0) for name, value in cuts]
        return grid(60) + [Setting.of(**knobs, no_repeat_ngram_size=3) for knobs in more]
    top_p = TOP_P if settings <= 12 * len(TEMPERATURES) else TOP_P + MORE_TOP_P
    points = product(TEMPERATURES[: settings // (len(TOP_K) * len(top_p))], TOP_K, top_p)
    return [Setting.of(temperature=t, top_k=k, top_p=p, no_repeat_ngram_size=3) for t, k, p in points]


def time_generate(
    model: Any, task: Task, sequences: Sequence[TokenSequence], options: argparse.Namespace
) -> dict[str, Any]:
    """(a) and (b), each on a random part, scaled to the whole."""
    noise, ways = random.Random(0), {}
    if options.loop:
        some = [noise.choice(sequences) for _ in range(options.loop)]
        seconds = sum(timed(generated, model, [task.prompts[s.prompt]], s, task.eos)[0] for s in some)
        say(f"(a) {seconds:.1f} s for {len(some)} outputs")
        ways["a"] = {"seconds": seconds * len(sequences) / len(some), "timed_on": f"{len(some)} outputs"}
    if options.batches:
        every = [p for p in task.prompts for _ in range(options.samples)]
        chosen = [
            TokenSequence(0, setting.changed(max_length=task.max_length), 0)
            for setting in noise.sample(grid(options.settings), options.batches)
        ]
        reset_peak()
        seconds = sum(timed(generated, model, every, s, task.eos)[0] for s in chosen)
        say(f"(b) {seconds:.1f} s for {len(chosen)} settings")
        ways["b"] = {
            "seconds": seconds * options.settings / len(chosen), "timed_on": f"{len(chosen)} settings",
            "peak_gib": peak_gib(),
        }  # fmt: skip
    return ways


def time_engine(
    model: Any,
    task: Task,
    batches: Sequence[Sequence[TokenSequence]],
    workspace: Workspace,
    report: dict[str, Any],
    options: argparse.Namespace,
) -> list[list[int]]:
    """(d) and (c), into ``report``; returns (d)'s tokens, sequence by sequence."""
    ways, texts = report["ways"], []
    for name in ("d",) if options.only_d else ("d", "c"):
        reset_peak()
        seconds, (tokens, rows) = timed(run, model, task, batches, workspace, share=name == "d")
        ways[name] = {
            "seconds": seconds, "timed_on": "all", "rows": sum(map(sum, rows)), "peak_gib": peak_gib(),
            "steps": sum(map(len, rows)), "tokens": sum(map(len, tokens)), "batches": len(batches),
        }  # fmt: skip
        say(f"({name}) {seconds:.1f} s")
        if name == "d":
            floor = roofline(model, task.prompts, rows)
            ways["d"] |= {"roofline_seconds": floor, "roofline_share": floor / seconds}
            texts = tokens
    return texts


def cut(sequences: Sequence[TokenSequence], most: int) -> list[Sequence[TokenSequence]]:
    """Return the sequences in as few batches of equal size as have at most ``most``."""
    size = -(-len(sequences) // -(-len(sequences) // most))
    return [sequences[i : i + size] for i in range(0, len(sequences), size)]


def plan(
    model: Any, task: Task, sequences: Sequence[TokenSequence], workspace: Workspace, most: int | None
) -> tuple[float, list[Sequence[TokenSequence]]]:
    """Decode once in batches of ``most``, halved until they fit; return the seconds and the batches that did."""
    most = most or (len(sequences) if torch.cuda.is_available() else _CPU_BATCH)
    while True:
        batches = cut(sequences, most)
        try:
            return timed(run, model, task, batches, workspace, told=True)[0], batches
        except torch.OutOfMemoryError:
            if most == 1:
                raise
        # Outside of the handler: the traceback would keep what was allocated.
        say(f"{most:,} sequences do not fit")
        most = -(-most // 2)
        workspace.clear()
        torch.cuda.empty_cache()


def run(
    model: Any,
    task: Task,
    batches: Sequence[Sequence[TokenSequence]],
    workspace: Workspace,
    *,
    share: bool = True,
    told: bool = False,
) -> tuple[list[list[int]], list[list[int]]]:
    """Decode batch after batch: each sequence's tokens, and each batch's rows step by step."""
    tokens, rows = [], []
    for number, batch in enumerate(batches, 1):
        used = sorted({sequence.prompt for sequence in batch})
        own = [replace(sequence, prompt=used.index(sequence.prompt)) for sequence in batch]
        decoded = decode(
            model, [task.prompts[p] for p in used], own, eos=task.eos, share=share,
            workspace=workspace,
        )  # fmt: skip
        tokens += decoded.tokens
        rows.append(decoded.rows)
        if told:
            say(f"(d) batch {number} of {len(batches)}: {sum(decoded.rows):,} rows")
    return tokens, rows


def generated(
    model: Any, prompts: Sequence[Sequence[int]], sequence: TokenSequence, eos: Sequence[int]
) -> Any:
    """What the homework calls: ``generate`` with one setting, its batch padded on the left."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    return model.generate(
        input_ids=ids, attention_mask=mask, do_sample=True, temperature=sequence.setting.temperature, top_k=sequence.setting.top_k,
        top_p=sequence.setting.top_p, max_new_tokens=sequence.setting.max_length, no_repeat_ngram_size=3, eos_token_id=list(eos),
        pad_token_id=0,
    )  # fmt: skip


def grow(
    model: Any, checkpoint: Checkpoint, load: Load, task: Task, options: argparse.Namespace, most: int
) -> Iterator[tuple[str, dict[str, float]]]:
    """Seconds and rows of (d) for 1, 4 and 16 times as many settings, samples, checkpoints, each loaded anew."""
    for kind, times in product(("settings", "samples", "checkpoints"), (1, 4, 16)):
        settings = options.settings * times if kind == "settings" else options.settings
        # 16 times the samples would be more than anyone asks for: it begins at a quarter.
        samples = max(1, options.samples // 4) * times if kind == "samples" else options.samples
        sequences, workspace, rows = task.sequences(settings, samples), Workspace(compile=load.compile), 0
        batches = cut(sequences, most)
        began = time.perf_counter()
        for _ in range(times if kind == "checkpoints" else 1):
            with with_checkpoint(model, checkpoint, load) as adapted:
                _, seen = run(adapted, task, batches, workspace)
            rows += sum(map(sum, seen))
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        row = {"times": times, "outputs": len(sequences) * (times if kind == "checkpoints" else 1)}
        row |= {"seconds": time.perf_counter() - began, "rows": rows}
        say(f"{times}× {kind}: {row['seconds']:.1f} s")
        yield kind, row


def time_searches(
    model: Any, base: Any, task: Task, options: argparse.Namespace
) -> Iterator[tuple[str, dict[str, float]]]:
    """Rows and seconds, the least of three, of beams and of samples, with contrast and without."""
    count, rest = options.beams, {"max_length": task.max_length}
    drawn = [
        TokenSequence(p, Setting.of(temperature=0.7, **rest), noise_key(42, example.id, sample))
        for (p, example), sample in product(enumerate(task.examples), range(count))
    ]
    beams = [
        TokenSequence(p, Setting.of(temperature=0, num_beams=count, **rest), 0)
        for p in range(len(task.prompts))
    ]
    apart = [replace(each, setting=each.setting.changed(contrast=0.5)) for each in drawn]
    other, workspace = Reader(base, Workspace(compile=options.compile)), Workspace(compile=options.compile)
    for name, sequences in ((f"{count} samples", drawn), (f"{count} beams", beams), ("contrast", apart)):
        against = other if sequences is apart else None
        ways = {"eos": task.eos, "workspace": workspace, "other": against}
        found = [timed(decode, model, task.prompts, sequences, **ways) for _ in range(3)]
        rows, steps = sum(found[0][1].rows), len(found[0][1].rows)
        yield name, {"rows": rows, "steps": steps, "seconds": min(seconds for seconds, _ in found)}


def compare_texts(
    base: Any,
    model: Any,
    checkpoint: Checkpoint,
    load: Load,
    task: Task,
    batches: Sequence[Sequence[TokenSequence]],
    texts: Sequence[Sequence[int]],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The share of outputs that other ways to compute the same leave as they are, and where the others part."""
    halves = [half for w in batches for half in (w[: len(w) // 2], w[len(w) // 2 :])]
    with with_checkpoint(model, checkpoint, load) as adapted:
        used = Workspace(compile=load.compile)
        yield "a row a sequence", likeness(texts, run(adapted, task, batches, used, share=False)[0])
        yield "batches of half the size", likeness(texts, run(adapted, task, halves, used)[0])
        used = Workspace(compile=not load.compile)
        name = "layers as they are" if load.compile else "layers compiled"
        yield name, likeness(texts, run(adapted, task, batches, used)[0])
        del used
    del adapted
    others = {
        "adapter merged" if not load.merge else "adapter not merged": replace(load, merge=not load.merge)
    }
    if models.dtype_of(load) != torch.float32 and load.quantization == "none":
        others["float32"] = replace(load, dtype="float32")
    for name, other in others.items():
        again = models.load_model(base, other)
        with with_checkpoint(again, checkpoint, other) as adapted:
            yield name, likeness(texts, run(adapted, task, halves, Workspace(compile=load.compile))[0])
        del again, adapted


def likeness(these: Sequence[Sequence[int]], those: Sequence[Sequence[int]]) -> dict[str, float | None]:
    """The share of equal texts; of the others, the mean place of the first token that differs, from 0."""
    places = [
        next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        for a, b in zip(these, those, strict=True)
        if list(a) != list(b)
    ]
    return {
        "equal": 1 - len(places) / len(these), "first_difference": sum(places) / len(places) if places else None
    }  # fmt: skip


def profiled(work: Callable[..., Any], *arguments: Any) -> list[dict[str, Any]]:
    """What ``work`` spends its time in, all and the most of it: the kernels of a GPU, else operations."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as seen:
        work(*arguments)
    on_gpu = torch.cuda.is_available()
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    kind = torch.autograd.DeviceType.CUDA if on_gpu else torch.autograd.DeviceType.CPU
    events = [event for event in seen.key_averages() if event.device_type == kind]
    events.sort(key=lambda event: -getattr(event, key))
    rows = [(event.key[:120], getattr(event, key) / 1e6, event.count) for event in events]
    every = ("all", sum(row[1] for row in rows), sum(row[2] for row in rows))
    return [dict(zip(("name", "seconds", "calls"), row, strict=True)) for row in (every, *rows[:20])]


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def timed(work: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[float, Any]:
    """Return the seconds that a call takes, the GPU's included, and what it returns.

    On one thread of a CPU they are the process's own, so that what else the machine does counts for little.
    """
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    clock = time.process_time if alone else time.perf_counter
    began = clock()
    result = work(*arguments, **options)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - began, result


def reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_gib() -> float:
    """Return the most memory held: the GPU's since ``reset_peak``; without one the process's, ever."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def roofline(model: Any, prompts: Sequence[Sequence[int]], batches: Sequence[Sequence[int]]) -> float:
    """Return the seconds that the machine's own rates allow for each batch's rows, step by step; prompts once."""
    merged = any(getattr(module, "merged", False) for module in model.modules())
    linear = [
        module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and not (merged and "lora_" in name)
    ]
    multiplied = 2 * sum(module.in_features * module.out_features for module in linear)
    read = sum(module.weight.numel() * module.weight.element_size() for module in linear)
    config = bare(model).config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    dtype = model.dtype if model.dtype.is_floating_point else torch.bfloat16
    token = (
        2 * config.num_hidden_layers * heads * width * dtype.itemsize
    )  # bytes of a token's keys and values
    prompt = sum(map(len, prompts))
    bandwidth, rate = copy_bandwidth(model.device), matrix_rate(model.device, dtype)
    seconds = prompt * multiplied / rate
    for rows in batches:
        for step, count in enumerate(rows[1:], 1):
            cache = (prompt * rows[0] / len(prompts) + count * step) * token
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
    a = torch.randn(size, size, device=device).to(dtype)
    a @ a
    return 2 * size**3 / min(timed(torch.matmul, a, a)[0] for _ in range(5))


def show(report: dict[str, Any]) -> None:
    ways, console = report["ways"], Console(width=120)
    title = f"{report['outputs']:,} outputs of {report['base']} on {report['device']}"
    table = Table("way", "seconds", "(d) is faster by", "rows", "peak GiB", "timed on", title=title)
    for name, way in sorted(ways.items()):
        times = f"{way['seconds'] / ways['d']['seconds']:.1f}×"
        rows = f"{way['rows']:,}" if "rows" in way else ""
        peak = f"{way['peak_gib']:.2f}" if "peak_gib" in way else ""
        table.add_row(f"({name}) {NAMES[name]}", f"{way['seconds']:.1f}", times, rows, peak, way["timed_on"])
    console.print(table)
    d = ways["d"]
    console.print(
        f"(d): {d['tokens']:,} tokens in {d['steps']} steps of {d['batches']} batches; the first time "
        f"{report['first_seconds']:.1f} s; {d['roofline_share']:.0%} of the roofline floor",
        highlight=False,
    )
    for name, found in report.get("texts", {}).items():
        place = found["first_difference"]
        others = "" if place is None else f", the others part at token {place:.0f}"
        console.print(f"texts, {name}: {found['equal']:.1%} equal{others}", highlight=False)
    for name, row in report.get("searches", {}).items():
        console.print(
            f"{name}: {row['rows']:,} rows in {row['steps']} steps, {row['seconds']:.2f} s", highlight=False
        )
    for kind, rows in report.get("growth", {}).items():
        for row in rows:
            console.print(
                f"{row['times']:>3}× {kind}: {row['outputs']:,} outputs, {row['rows']:,} rows, "
                f"{row['seconds']:.1f} s, {row['seconds'] / rows[0]['seconds']:.2f}× the time",
                highlight=False,
            )
    for row in report.get("profile", []):
        console.print(
            f"{row['seconds']:8.3f} s {row['calls']:>7}  {row['name']}", highlight=False, markup=False
        )


if __name__ == "__main__":
    main()
