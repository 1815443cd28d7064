"""A small results folder made without a model: texts given, everything after them by the project's own code."""

import hashlib
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from tangeval.analysis import scoring as score
from tangeval.analysis import select, summarize
from tangeval.core.study import Study
from tangeval.results.files import write_json, write_parquet, write_text
from tangeval.results.folder import RunFolder
from tangeval.results.plan import Batch, write_plan
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang.text import as_verse

#: What a text, a name or a path may hold that would like to be more than text.
HOSTILE = (
    "</script><script>document.title='broken'</script>",
    "<img src=x onerror=\"document.title='broken'\">",
    "春\u202e眠\u200b不\x07覺\x00曉\u2028。",
    "<!--<script>]]>&lt;b&gt;\"'`${document.title='broken'}",
    "",
)
NAME = "run,\"<img src=x onerror=document.title='broken'>\u202e-10"
STUDY: dict[str, Any] = {
    "name": "small", "samples": 2,
    "decoding": {"temperature": [0.0, 0.7, 1.0], "top_k": [0, 5], "top_p": [0.6, 1.0], "max_length": [6, 18]},
    "select": {"checkpoint": "bleu", "setting": {"by": "bleu"}},
}  # fmt: skip


def manifest(study: str, names: list[str], data: dataset.Dataset) -> dict[str, Any]:
    checkpoints = [
        {"name": name, "step": None if name == "base" else 10 * place, "kind": "base" if name == "base" else "adapter",
         "path": f"/secret/{name}", "fingerprint": f"f{place}", "seen": {"validation": 0, "test": 0}}
        for place, name in enumerate(names)
    ]  # fmt: skip
    return {
        "schema": 3, "tangeval": "0", "study": study, "seed": 42, "signature": "5ig", "engine": "cpu",
        "noise": "shared", "data": {"name": data.name, "digest": data.digest},
        "base_model": {"name": "tang-mini", "fingerprint": "ba5e"}, "checkpoints": checkpoints,
        "left_out": [], "versions": {"torch": "2"}, "hardware": {"cores": 2},
    }  # fmt: skip


def make_results(
    folder: Path, names: tuple[str, ...] = ("base", NAME), **changes: Any
) -> tuple[Study, dataset.Dataset]:
    """Write generations (a hostile text here and there), scores, summary and choice into ``folder``."""
    study, data = Study.model_validate(STUDY | changes), dataset.load("sample")
    examples = [e for split in study.ordered_splits() for e in data.split(split)]
    training = [as_verse(e.reference) for e in data.split("train")]
    batches, run = [], RunFolder(folder)
    for number, (name, example) in enumerate(product(names, examples)):
        batch = Batch(
            f"w{number}",
            name,
            "",
            (example.id,),
            tuple(range(study.samples_of(example.split))),
            study.decoding.settings(),
        )
        rows = []
        for place, (setting, sample) in enumerate(product(batch.settings, batch.samples)):
            # What a sequence writes depends on all but the length, as it does where a model writes.
            choice = hash_of(number, sample, *setting.sequence)
            text = training[choice % len(training)] if choice % 7 else as_verse(example.reference)
            text = HOSTILE[choice % 5] if choice % 11 == 0 else text[: setting.max_length]
            rows.append({"sample": sample, "text": text, **setting.as_dict(),
                         "finish_reason": "stop" if place % 3 else "length"})  # fmt: skip
        frame = pd.DataFrame(rows).assign(
            checkpoint=name, step=None if name == "base" else 10 * names.index(name), no_repeat_ngram_size=3, split=example.split,
            example_id=example.id, n_tokens=12,
        )  # fmt: skip
        write_parquet(run.batch_file(batch.id), frame.astype({"step": "Int64"}))
        batches.append(batch)
    write_plan(run, batches)
    run.tidy_checksums(run.batch_files())
    write_json(folder / "manifest.json", manifest(study.name, list(names), data))
    write_text(folder / "study.yaml", study.to_yaml())
    score.score(study, data, folder)
    summarize.summarize(run)
    if study.select:
        select.select(study, run)
    return study, data


def hash_of(*parts: Any) -> int:
    """A number that is the same in every process."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=6).digest(), "big")
