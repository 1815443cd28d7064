"""What a constraint costs: CPU seconds of the same decode, free and constrained, one after the other.

python -m benchmarks.constrain [--examples 6] [--rounds 3]
python -m benchmarks.constrain --results results/constrained

In: tang-mini, the quickstart's grid of settings, the sample's test poems. Out: for each value of ``constrain``, the median
CPU seconds of this process, and how many of them go to forms and masks. With ``--results``, of a run's base model and
last checkpoint: nats a character of their own texts under themselves, free.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.command import command_line
from tangeval.core.knobs import Setting
from tangeval.core.study import SHIPPED, load_study
from tangeval.decoding.batch import Workspace
from tangeval.decoding.decoder import TokenSequence, decode
from tangeval.decoding.forms import Forms
from tangeval.decoding.noise import noise_key
from tangeval.engines.base import asked
from tangeval.engines.constraints import Constraints, constraints_of
from tangeval.engines.likelihood import Reference, reference_nll
from tangeval.models import loading
from tangeval.models.adapters import with_checkpoint
from tangeval.models.tokens import encode_prompt
from tangeval.resolve import resolve
from tangeval.results.folder import RunFolder


def main() -> None:
    parser = command_line(__file__, __doc__)
    parser.add_argument("--examples", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.results:
        likelihoods(options.results)
        return
    resolved = resolve(load_study(SHIPPED / "quickstart.yaml", ["checkpoints=[]", "decoding.max_length=64"]))
    tokenizer = loading.load_tokenizer(resolved.base)
    model = loading.load_model(resolved.base, resolved.study.loading())
    eos, give = loading.eos_ids(model, tokenizer), constraints_of(resolved, tokenizer)
    examples = resolved.examples("test")[: options.examples]
    prompts = [encode_prompt(tokenizer, asked(resolved, example)) for example in examples]
    values = ["none", *resolved.task.constraints]
    found: dict[str, list[tuple[float, float]]] = {value: [] for value in values}
    tokens: dict[str, int] = {}
    for _ in range(options.rounds + 1):  # the first wakes libraries up, and fills the constraints' tables
        for value in values:
            sequences = _sequences(resolved.study.decoding.settings(), examples, value, give)
            with _timed() as own:
                began = time.process_time()
                decoded = decode(model, prompts, sequences, eos=eos)
                found[value].append((time.process_time() - began, own[0]))
            tokens[value] = sum(map(len, decoded.tokens))
    for value, each in found.items():
        usual, own = map(statistics.median, zip(*each[1:], strict=True))
        print(
            f"{value:18} {usual:5.2f} s ({each[0][0]:.2f} the first time), {tokens[value]:,} tokens; forms and masks "
            f"{own:.2f} s, {own / (usual - own):.1%} of the rest"
        )


def likelihoods(folder: Path) -> None:
    """Print what each value of ``constrain`` makes a checkpoint write that it finds unlikely."""
    resolved = resolve(load_study(folder / "study.yaml"))
    texts = pd.concat(map(pd.read_parquet, RunFolder(folder).batch_files()))
    tokenizer, load = loading.load_tokenizer(resolved.base), resolved.study.loading()
    model = loading.load_model(resolved.base, load)
    for checkpoint in (resolved.checkpoints[0], resolved.checkpoints[-1]):
        own = texts[texts["checkpoint"] == checkpoint.name]
        prompts = (asked(resolved, resolved.dataset.by_id[name]) for name in own["example_id"])
        written = [Reference("", *pair) for pair in zip(prompts, own["text"], strict=True)]
        with with_checkpoint(model, checkpoint, load) as on:
            found = reference_nll(on, tokenizer, written, resolved.task.characters, Workspace())
        size = own["text"].map(lambda text: len(resolved.task.characters(text)) or 1)
        own = own.assign(nats=[each.nats for each in found], size=size)
        sums = own.groupby(["temperature", "constrain"])[["nats", "size"]].sum()
        print(checkpoint.name, (sums["nats"] / sums["size"]).round(3).unstack().to_string(), sep="\n")


@contextmanager
def _timed() -> Iterator[list[float]]:
    """CPU seconds in ``Forms``, for the time being."""
    seconds, kept = [0.0], {name: getattr(Forms, name) for name in ("of", "group", "advance")}

    def timed(name: str) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            began = time.process_time()
            result = kept[name](*arguments)
            seconds[0] += time.process_time() - began
            return result

        return run

    for name in kept:
        setattr(Forms, name, timed(name))
    try:
        yield seconds
    finally:
        for name, method in kept.items():
            setattr(Forms, name, method)


def _sequences(
    settings: tuple[Setting, ...], examples: tuple, value: str, give: Constraints
) -> list[TokenSequence]:
    return [
        TokenSequence(
            place, setting.changed(constrain=value), noise_key(42, example.id, 0), give(value, example)
        )
        for place, example in enumerate(examples)
        for setting in settings
    ]


if __name__ == "__main__":
    main()
