"""What many records cost: a declared task whose test split has 100,000, at one setting.

    python -m benchmarks.records [100000] [--folder results/bench/records]

Made up: a task of questions and answers with as many test records as are asked for and a tenth as many for training, an
answer to each, and the same answers as the generations of one checkpoint. Each step runs in a process of its own; memory
is that of all of its processes together, as ``benchmarks.scale`` looks at it. The numbers of the tables mean nothing. Needs
no torch, and Linux.
"""

import json
import random
import sys
from pathlib import Path

import pandas as pd

from benchmarks.command import command_line
from benchmarks.report import manifest
from benchmarks.scale import timed
from tangeval import api, tasks
from tangeval.analysis import scoring, summarize
from tangeval.core.digest import digest
from tangeval.core.study import Study
from tangeval.reporting.page import build
from tangeval.results.files import write_json, write_parquet, write_text
from tangeval.results.folder import RunFolder
from tangeval.results.plan import Batch, write_plan
from tangeval.tasks.base import Dataset

STEPS = ("read", "baseline", "score a file", "score", "summarize", "page")
AT_ONCE = 2_000  # generations of a batch file
TASK = """name: answers
data: {train: train.jsonl, test: test.jsonl, validation: 100}
fields: {prompt: question, reference: answer}
prompt: "{{ question }}\\n"
text: {normalize: [lower], compare: words}
checks: [{max_words: 30}, {script: Latin}]
metrics: [{bleu: {tokenize: char}}, chrf, exact, length_ratio]
"""


def main() -> None:
    parser = command_line(__file__, __doc__)
    parser.add_argument("records", nargs="?", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=Path("results/bench/records"))
    parser.add_argument("--step", choices=STEPS, help="only this step, in this process")
    options = parser.parse_args()
    if options.step:
        step(options.step, options.folder)
        return
    made_up(options.folder, options.records)
    for name in STEPS:
        told = timed(
            [sys.executable, "-m", "benchmarks.records", "--step", name, "--folder", str(options.folder)]
        )
        print(
            f"{options.records:,} {name}: {told['cpu_seconds']:.0f} s of cores, {told['gib']:.2f} GiB",
            flush=True,
        )


def step(name: str, folder: Path) -> None:
    """One step of ``tangeval score`` or ``tangeval summarize``."""
    file = str(folder / "task.yaml")
    if name == "read":
        print(len(tasks.load(file).load("sample", None).examples), "records read")
    elif name == "baseline":
        task = tasks.load(file)
        data = task.load("sample", None)
        print(sum(len(task.baseline(data, example, 0, 1)) for example in data.split("test")), "texts drawn")
    elif name == "score a file":
        print(
            api.score_files([folder / "outputs.txt"], task=file)
            .table[["checkpoint", "poems", "exact"]]
            .to_string()
        )
    else:
        results = api.load_results(folder)
        if name == "score":
            scoring.score(results.study, results.dataset, folder)
        elif name == "summarize":
            summarize.summarize(RunFolder(folder))
        else:
            print(build.write(results.study, results.dataset, folder)[1])


def made_up(folder: Path, records: int) -> None:
    """Write the task, its records, a file of outputs, and a results folder of the same texts."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = random.Random(0)
    words = [
        f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("ra", "lo", "ne", "ti", "s", "m")
    ]

    def sentence(least: int, most: int) -> str:
        return " ".join(noise.choices(words, k=noise.randint(least, most))).capitalize() + "."

    for name, count in (("train", records // 10), ("test", records)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for _ in range(count):
                file.write(json.dumps({"question": sentence(6, 12), "answer": sentence(8, 20)}) + "\n")
    write_text(folder / "task.yaml", TASK)
    data = tasks.load(str(folder / "task.yaml")).load("sample", None)
    texts = [sentence(8, 20) for _ in data.split("test")]
    write_text(folder / "outputs.txt", "".join(f"{text}\n" for text in texts))
    results(folder, data, texts)


def results(folder: Path, data: Dataset, texts: list[str]) -> None:
    """Write the texts as what a run of one checkpoint and setting leaves."""
    study = Study.model_validate(
        {"name": "answers", "task": str(folder / "task.yaml"), "splits": ["test"], "samples": 1, "select": None,
         "decoding": {"temperature": 1.0, "max_length": 48, "no_repeat_ngram_size": 0}}
    )  # fmt: skip
    run, examples, batches = RunFolder(folder), data.split("test"), []
    (setting,) = study.decoding.settings()
    for begin in range(0, len(examples), AT_ONCE):
        some = examples[begin : begin + AT_ONCE]
        batch = Batch(digest([begin]), "base", "", tuple(e.id for e in some), (0,), (setting,))
        rows = pd.DataFrame({
            "checkpoint": "base", "step": pd.array([None] * len(some), "Int64"), **setting.as_dict(study.decoding.columns),
            "split": "test", "example_id": list(batch.examples), "sample": 0, "text": texts[begin : begin + AT_ONCE],
            "n_tokens": 20, "finish_reason": "stop",
        })  # fmt: skip
        write_parquet(run.batch_file(batch.id), rows)
        batches.append(batch)
    write_plan(run, batches)
    write_json(run.manifest_file, manifest(["base"], data))
    write_text(run.study_file, study.to_yaml())


if __name__ == "__main__":
    main()
