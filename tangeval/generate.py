"""Checkpoints → generations and likelihoods.

In: a resolved study and a results folder. Out: one parquet shard a wave, each whole or not
there, and ``likelihood.parquet``. What is there already and still holds is not made again.
Knows nothing of metrics.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedTokenizerBase

from tangeval import model as models
from tangeval.checkpoint import Skipped
from tangeval.decoding.attention import suits
from tangeval.decoding.engine import Stream
from tangeval.decoding.memory import RowCost, UnmeasuredError, decode_in_memory, measure
from tangeval.decoding.rows import Workspace
from tangeval.decoding.sampler import luck_key
from tangeval.likelihood import Likelihood, reference_nll
from tangeval.plan import GENERATIONS, Setup, Wave, digest, make_plan, pace, record, said_of
from tangeval.prompt import completion_text, encode_completion, encode_prompt
from tangeval.records import Base, Cell, Load, TangevalError, UnusableError
from tangeval.store import TIMINGS, read_json, record_seconds, sweep, weed, write_json, write_shard

_CPU_BUDGET = 2 * 2**30  # bytes for the rows of a wave; the whole process then stays under 4 GiB

#: Told, as work goes on, the checkpoint at hand, how many outputs ended, and the latest text.
OnProgress = Callable[[str, int, str], None]


def plan(setup: Setup, folder: Path) -> tuple[list[Wave], dict[str, str]]:
    """Return the study's waves and each checkpoint's context, without loading any weights."""
    load = setup.study.loading()
    contexts = {c.name: setup.context(c, engine_name(load)) for c in setup.checkpoints}
    rows = setup.study.batch_size
    if rows == "auto":
        rows = _rows_by_trial(setup, folder) or rows_that_fit(setup)
    return make_plan(setup, folder, contexts, rows), contexts


def generate(
    setup: Setup,
    folder: Path,
    on_progress: OnProgress = lambda name, ended, text: None,
    *,
    keep_going: bool = False,
) -> tuple[Skipped, ...]:
    """Make the generations and likelihoods that ``folder`` lacks.

    With ``keep_going`` a checkpoint that cannot be used is returned with its reason, and the
    others are made; the folder is whole once it is called again without those.

    Raises:
        TangevalError: a model or an adapter cannot be loaded, or does not give numbers.
    """
    failed: list[Skipped] = []
    load = setup.study.loading(allow_pickle=setup.allow_pickle)
    tokenizer = models.load_tokenizer(setup.base)
    waves, contexts, base = _prepare(setup, folder, load, tokenizer)
    likelihood = Likelihood(setup, folder, contexts)
    check_openings(setup, tokenizer)
    workspace = Workspace()
    for checkpoint in setup.checkpoints:
        pending = [w for w in waves if w.checkpoint == checkpoint.name and not w.shard(folder).is_file()]
        lacking = likelihood.lacking(checkpoint)
        if not pending and not lacking:
            continue
        if checkpoint.kind == "full":
            base = None  # two models at a time may be one too many
            workspace.clear()
        elif base is None:
            workspace.clear()
            base = _load(setup, load, folder)
        try:
            with models.with_checkpoint(base, checkpoint, load) as model:
                for wave in pending:
                    began = time.perf_counter()
                    frame = run_wave(setup, wave, model, tokenizer, workspace, on_progress)
                    write_shard(wave.shard(folder), frame)
                    record_seconds(folder, "waves", wave.id, began)
                began = time.perf_counter()
                surprises = reference_nll(model, tokenizer, setup, lacking, workspace)
                likelihood.add(checkpoint, lacking, surprises)
                record_seconds(folder, "likelihood", checkpoint.name, began)
            del model
        except UnusableError as error:
            if not keep_going:
                raise TangevalError(f"{checkpoint.name}: {error}; --keep-going leaves it out") from error
            # peft leaves on the model what it had loaded before it failed.
            base = None
            workspace.clear()
            failed.append(Skipped(checkpoint.path or Path(setup.base.source), str(error)))
    if not failed:
        likelihood.write()
    return tuple(failed)


def _prepare(
    setup: Setup, folder: Path, load: Load, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[Wave], dict[str, str], Any]:
    """Clear the folder of what is not whole, plan, and record the plan; return the base too where a trial loaded it."""
    sweep(folder)
    weed(folder)
    waves, contexts = plan(setup, folder)
    base = None
    if _wants_trial(setup, folder, waves):
        base = _load(setup, load, folder)
        _try_rows(setup, folder, base, tokenizer)
        waves, contexts = plan(setup, folder)
    record(setup, folder, waves, manifest(setup, contexts))
    return waves, contexts, base


def check_openings(setup: Setup, tokenizer: PreTrainedTokenizerBase) -> None:
    """Warn if no_repeat_ngram_size forbids the token that the poets' own endings begin with.

    It counts the prompt's tokens. Where the prompt's last ones stand in it before, and the
    first of a completion after them, every output begins with a stray one.

    Raises:
        TangevalError: the tokenizer cannot ask, or cannot tell where a poem ends.
    """
    study, size = setup.study, setup.study.decoding.no_repeat_ngram_size
    forbidden: list[str] = []
    examples = [e for split in study.ordered_splits() for e in setup.examples(split)]
    for example in examples:
        prompt = encode_prompt(tokenizer, example, study.prompt)
        first = encode_completion(tokenizer, example, study.prompt, example.reference)[0]
        end = [*prompt[len(prompt) - size + 1 :], first]
        if size and any(prompt[i : i + size] == end for i in range(len(prompt) - size + 1)):
            forbidden.append(str(tokenizer.decode(end)))
    if forbidden:
        warnings.warn(
            f"decoding.no_repeat_ngram_size: {size} forbids how the poets' own endings begin after {len(forbidden)} of "
            f"{len(examples)} prompts, since {forbidden[0]!r} stands in the prompt before; outputs will begin with a stray "
            "token, and form suffers. Use 0 or another size (docs/results.md, a trap)",
            stacklevel=2,
        )


def run_wave(
    setup: Setup,
    wave: Wave,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    workspace: Workspace,
    on_progress: OnProgress,
) -> pd.DataFrame:
    """Decode one wave and return its rows, columns ``GENERATIONS``, in the plan's order."""
    study = setup.study
    examples = [setup.dataset.by_id[name] for name in wave.examples]
    streams, place = _streams(wave, study.seed)
    eos = models.eos_ids(model, tokenizer)
    tokens = decode_in_memory(
        model,
        [encode_prompt(tokenizer, example, study.prompt) for example in examples],
        streams,
        eos=eos,
        no_repeat_ngram_size=study.decoding.no_repeat_ngram_size,
        workspace=workspace,
        on_step=lambda ended: on_progress(wave.checkpoint, ended, ""),
    )
    step = next(c.step for c in setup.checkpoints if c.name == wave.checkpoint)
    texts: dict[tuple[int, ...], str] = {}
    rows = []
    for prompt, example in enumerate(examples):
        for cell in wave.cells:
            for sample in wave.samples:
                ids = tokens[place[_stream_of(prompt, cell, sample)]][: cell.max_length]
                stopped = ids[-1] in eos
                key = tuple(ids)
                if key not in texts:
                    texts[key] = completion_text(tokenizer, ids[:-1] if stopped else ids, cut=not stopped)
                knobs = (cell.temperature, cell.top_k, cell.top_p, cell.max_length)
                rows.append(
                    (wave.checkpoint, step, *knobs, study.decoding.no_repeat_ngram_size, example.split,
                     example.id, sample, texts[key], len(ids), "stop" if stopped else "length")
                )  # fmt: skip
    on_progress(wave.checkpoint, 0, rows[-1][10])
    return pd.DataFrame(rows, columns=list(GENERATIONS)).astype({"step": "Int64"})


def _stream_of(prompt: int, cell: Cell, sample: int) -> tuple[Any, ...]:
    """What decides a stream's tokens; luck plays no part at temperature 0."""
    return (prompt, cell.stream, 0 if cell.temperature == 0 else sample)


def _streams(wave: Wave, seed: int) -> tuple[list[Stream], dict[tuple[Any, ...], int]]:
    """The distinct streams of a wave, each as long as the longest cell wants it, and their places."""
    longest: dict[tuple[Any, ...], int] = {}
    for prompt in range(len(wave.examples)):
        for cell in wave.cells:
            for sample in wave.samples:
                key = _stream_of(prompt, cell, sample)
                longest[key] = max(longest.get(key, 0), cell.max_length)
    streams = [
        Stream(prompt, temperature, top_k, top_p, luck_key(seed, wave.examples[prompt], sample), length)
        for (prompt, (temperature, top_k, top_p), sample), length in longest.items()
    ]
    return streams, {key: index for index, key in enumerate(longest)}


def engine_name(load: Load) -> str:
    """Return on what texts are computed: device, dtype and, on a CPU, threads."""
    device = models.device()
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} {models.dtype_of(load)}"
    return f"cpu {models.dtype_of(load)} {torch.get_num_threads()} threads"


def _load(setup: Setup, load: Load, folder: Path) -> Any:
    began = time.perf_counter()
    base = models.load_model(setup.base, load)
    record_seconds(folder, "load", setup.base.name, began)
    return base


def _trial_key(setup: Setup) -> str:
    load = setup.study.loading()
    return digest([setup.base_fingerprint, asdict(load), engine_name(load)])


def _wants_trial(setup: Setup, folder: Path, waves: Sequence[Wave]) -> bool:
    """Whether a GPU is about to decode waves whose size it was not asked yet."""
    return (
        models.device().type == "cuda"
        and setup.study.batch_size == "auto"
        and any(c.kind != "full" for c in setup.checkpoints)
        and _trial_key(setup) not in (read_json(folder / TIMINGS) or {}).get("rows", {})
        and any(not wave.shard(folder).is_file() for wave in waves)
    )


def _try_rows(setup: Setup, folder: Path, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Measure what a row costs here, and write it down; not of a model that shares short prompts alone."""
    examples = [e for split in setup.study.ordered_splits() for e in setup.examples(split)]
    prompt = max((encode_prompt(tokenizer, e, setup.study.prompt) for e in examples), key=len)
    length = len(prompt) + max(setup.study.decoding.max_length)
    if not suits(type(model), model.config.get_text_config(), length):
        return
    try:
        cost, free = measure(model, prompt)
    except (torch.OutOfMemoryError, UnmeasuredError) as error:
        warnings.warn(
            f"a trial of some hundred short outputs did not tell what a row costs on this GPU ({error}); waves are planned by "
            "the model's sizes instead, and halved until they fit",
            stacklevel=2,
        )
        return
    timings = read_json(folder / TIMINGS) or {}
    timings.setdefault("rows", {})[_trial_key(setup)] = asdict(cost) | {"free": free}
    write_json(folder / TIMINGS, timings)


def _rows_by_trial(setup: Setup, folder: Path) -> int | None:
    """How many streams a wave may have by what ``_try_rows`` wrote down; None if nothing."""
    known = (read_json(folder / TIMINGS) or {}).get("rows", {}).get(_trial_key(setup))
    if known is None:
        return None
    cost = RowCost(known["fixed"], known["token"])
    return cost.streams(max(setup.study.decoding.max_length), known["free"])


def rows_that_fit(setup: Setup) -> int:
    """Return how many streams a wave may have, from the declared memory and the model's sizes.

    On a CPU, and on a GPU for the plan of a run that never ran: a GPU is asked by trial.

    A stream's cost is its tokens' keys and values, the prompt's too where a model does not
    let its rows share them, twice over in the layer at hand, and a few vectors of the size of
    the vocabulary. Streams that share a row cost less than is reckoned here.
    """
    base, load, study = setup.base, setup.study.loading(), setup.study
    whole = models.load_config(base)
    config = whole.get_text_config()
    tokenizer = models.load_tokenizer(base)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    examples = [e for split in study.ordered_splits() for e in setup.examples(split)]
    prompt = max(len(encode_prompt(tokenizer, e, study.prompt)) for e in examples)
    length = max(study.decoding.max_length)
    tokens: float = prompt + length
    if suits(MODEL_FOR_CAUSAL_LM_MAPPING.get(type(whole), None), config, prompt + length):
        streams = {cell.stream for cell in study.decoding.cells()}
        tokens = length + prompt / len(streams)
    layers = config.num_hidden_layers
    cache = 2 * (layers + 2) * heads * width * models.dtype_of(load).itemsize * tokens
    return max(1, int(_budget(base, load) / (cache + 24 * config.vocab_size)))


def _budget(base: Base, load: Load) -> float:
    """Bytes for the rows of a wave: fixed on a CPU; on a GPU, most of what the weights leave."""
    device = models.device()
    if device.type != "cuda":
        return _CPU_BUDGET
    files = Path(base.source).glob(base.gguf or "*.safetensors") if base.local else []
    shrink = 1.0 if load.merge else {"none": 1.0, "int8": 0.55, "nf4": 0.35}[load.quantization]
    weights = sum(file.stat().st_size for file in files) * shrink * (4 if base.gguf else 1)
    total = torch.cuda.get_device_properties(device).total_memory
    return max(0.7 * (total - weights) - 2**30, 2**28)


def estimate(setup: Setup, folder: Path, pending: Sequence[Wave]) -> str:
    """Say what the pending waves will take, from the waves that were timed in ``folder``."""
    if not pending:
        return "nothing to decode: all that the study asks for is there"
    largest = max(w.streams() for w in pending)
    memory = _budget(setup.base, setup.study.loading()) / 2**30
    planned = (
        "by what a row took here"
        if _rows_by_trial(setup, folder)
        else f"for {memory:.1f} GiB beside the weights"
    )
    size = f"waves of up to {largest:,} streams, planned {planned}"
    return f"{size}; {pace(folder, pending)}"


def manifest(setup: Setup, contexts: dict[str, str]) -> dict[str, Any]:
    """Return what a results folder says of its own making; the same run gives the same bytes."""
    device = models.device()
    return said_of(
        setup,
        contexts,
        engine=engine_name(setup.study.loading()),
        luck="keyed by seed, example, sample, step, token: shared between cells and checkpoints",
        luck_shared=True,
        packages=("torch", "transformers", "peft", "tokenizers"),
        gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    )
