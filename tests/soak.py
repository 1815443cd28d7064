"""SIGKILL at random moments: whatever a command was doing, the same command goes on and ends in the same bytes.

    python -m tests.soak --kills 50

A tiny model is fine-tuned, decoded, scored, summarised and put on a page, decoded to a URL, judged by a
server and put through successive halving, each once without a cut; what every stage left is set aside. Then each stage is begun anew from what the one before
it left, in a process group of its own, and killed: half of the times at a moment drawn evenly
from the stage's time, half at one of the moments at which its files change. What is there after
a kill is looked at, the same command is given again (and perhaps killed again), and what it ends
in is compared, byte for byte, with the uncut run. Exit code 1 says that something differs.

Only what docs/design.md lets differ may differ: ``timings.jsonl``, and the seconds in
``training_log.csv``. The soak is no part of the tests, since it takes a quarter of an hour.
"""

import argparse
import csv
import hashlib
import io
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from tangeval.core.keeping import QUARANTINE
from tangeval.core.libraries import quieten
from tangeval.models.checkpoints import discover
from tangeval.tasks.tang import data as dataset
from tests.support.stub_server import StubServer

FINETUNE = """
base_model: ../model
data: sample
output_dir: checkpoints
records: 96
epochs: 1
learning_rate: 1.0e-2
warmup_steps: 1
per_device_batch_size: 8
batch: 16
logging_steps: 1
save_steps: 2
"""
STUDY = """
name: soak
base_model: ../model
checkpoints: checkpoints
data: sample
decoding: {temperature: [0, 0.7, 1.0], top_k: [0, 5], max_length: [8, 16], no_repeat_ngram_size: 0}
samples: {validation: 1, test: 2}
batch_size: 60
select: {setting: {by: bleu}}
"""
PYTHON = sys.executable
#: Files that a stage rewrites as it goes on: until its end they are whole, but not yet what they will be.
GROWING = {"run.json", "training_log.csv", "generations.sha256", "likelihood.parquet", "judge.jsonl"}
#: Files of times.
_FREE = ("timings.json", "timings.jsonl")
#: The seconds that a command may take that is not killed.
PATIENCE = 300


@dataclass(frozen=True)
class Stage:
    """One command; ``share`` of all kills fall into it.

    ``forget`` names what an earlier stage left that this one is to make anew. A command that is
    two stages has the file that ends the first of them in ``until``, and in ``since`` of the second.
    ``url`` is where a killed run leaves a lock, which is removed before the command is given again.
    """

    name: str
    command: tuple[str, ...]
    share: float
    forget: tuple[str, ...] = ()
    until: str = ""
    since: str = ""
    url: str = ""


@dataclass(frozen=True)
class Uncut:
    """What a stage did that nobody killed: when it ran and when its files changed (seconds after its start)."""

    stage: Stage
    before: Path  #: the folder that it began with
    after: Path  #: and that it left
    said: bytes
    changes: tuple[float, ...]
    begins: float
    ends: float

    @property
    def numbers(self) -> list[int]:
        """Which of the command's changes fall into the stage, counted from 1."""
        return [n for n, at in enumerate(self.changes, 1) if self.begins <= at <= self.ends]


@dataclass(frozen=True)
class Round:
    """A stage that was killed and went on: where, and what was half-written or differed in the end."""

    kills: tuple[str, ...]
    faults: tuple[str, ...]


_TANGEVAL = (PYTHON, "-m", "tangeval")
_URL = "local://remote"
_PORT = 18417  # of the judge: its address is a part of its answers
_JUDGE = ("--endpoint", f"http://127.0.0.1:{_PORT}/v1", "--model", "stub", "--parallel", "1", "--limit", "60")
STAGES = (
    Stage("finetune", (PYTHON, "-m", "finetune", "../finetune.yaml"), 0.2),
    Stage("generate", (*_TANGEVAL, "generate", "../study.yaml", "--out", "results"), 0.2),
    Stage("score", (*_TANGEVAL, "summarize", "results"), 0.1, until="results/scores.parquet"),
    Stage("summarize", (*_TANGEVAL, "summarize", "results"), 0.1, since="results/scores.parquet"),
    Stage("report", (*_TANGEVAL, "report", "results"), 0.08, forget=("results/report.html",)),
    Stage("score FILE", (*_TANGEVAL, "score", "../poems.txt", "--data", "sample", "--json"), 0.06),
    Stage("generate at a URL", (*_TANGEVAL, "generate", "../study.yaml", "--out", _URL), 0.1, url=_URL),
    Stage("judge", (*_TANGEVAL, "judge", "results", *_JUDGE), 0.08),
    Stage("halving", (*_TANGEVAL, "halving", "../study.yaml", "--out", "race"), 0.08),
)


# Running and killing


def begun(stage: Stage, place: Path, said: Path) -> subprocess.Popen[bytes]:
    if stage.url:
        subprocess.run([*_TANGEVAL, "unlock", stage.url], cwd=place, check=True, capture_output=True)
    with said.open("wb") as stream:
        return subprocess.Popen(
            stage.command, cwd=place, stdout=stream, stderr=subprocess.PIPE, start_new_session=True
        )  # fmt: skip


def changes(process: subprocess.Popen[bytes], place: Path) -> Iterator[float]:
    """Yield, each time that a file is seen to have changed while a process runs, the seconds since now."""
    began, before = time.monotonic(), state(place)
    while process.poll() is None:
        time.sleep(0.001)
        now = state(place)
        if now != before:
            before = now
            yield time.monotonic() - began


def state(place: Path) -> dict[str, tuple[int, int, int]]:
    """Every file's place on the disk, size and time of change; what vanishes meanwhile is left out."""
    found: dict[str, tuple[int, int, int]] = {}
    waiting = [str(place)]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except FileNotFoundError:
            continue
        for entry in entries:
            try:
                facts = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            found[entry.path] = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
    return found


def uncut(stage: Stage, work: Path, before: Path) -> Uncut:
    """Run a stage's command to its end in ``work/place``, as ``before`` was, and set aside what it leaves."""
    place, said, after = work / "place", work / "said", work / f"after {stage.name}"
    restore(place, before, stage)
    mark, marked = stage.until or stage.since, 0.0
    process, times, began = begun(stage, place, said), [], time.monotonic()
    for seconds in changes(process, place):
        times.append(seconds)
        marked = marked or (seconds if mark and (place / mark).is_file() else 0.0)
    errors = process.communicate(timeout=PATIENCE)[1]
    took = time.monotonic() - began
    if process.returncode:
        raise SystemExit(f"{stage.name}: ended with {process.returncode}: {errors.decode()[-2000:]}")
    shutil.copytree(place, after)
    begins, ends = (marked if stage.since else 0.0), (marked if stage.until else took)
    return Uncut(stage, before, after, said.read_bytes(), tuple(times), begins, ends)


def restore(place: Path, before: Path, stage: Stage) -> None:
    for old in (place, Path(os.environ["TANGEVAL_CACHE"])):  # where copies of URLs are
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(before, place)
    if stage.url:  # a local store makes no folders
        (place / "remote" / "generations").mkdir(parents=True)
    for name in stage.forget:
        (place / name).unlink()


def killed(uncut: Uncut, work: Path, noise: random.Random) -> str:
    """Start a stage's command and kill it somewhere; say where, or nothing if it ended before."""
    place = work / "place"
    aimed = noise.random() < 0.5 and uncut.numbers
    process, began = begun(uncut.stage, place, work / "said"), time.monotonic()
    if aimed:
        wanted = noise.choice(uncut.numbers)
        where = f"change {wanted} of {len(uncut.changes)}"
        next(islice(changes(process, place), wanted - 1, None), None)
    else:
        moment = noise.uniform(uncut.begins, uncut.ends)
        where = f"{moment:.2f} s of {uncut.begins:.2f} to {uncut.ends:.2f}"
        while process.poll() is None and time.monotonic() - began < moment:
            time.sleep(0.001)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return where if process.returncode == -signal.SIGKILL else ""


# Looking


def contents(place: Path) -> dict[str, str]:
    """Every file's digest, but of what may differ and what was moved aside; a draft is a file like any other."""
    return {
        str(file.relative_to(place)): digest(file)
        for file in sorted(place.rglob("*"))
        if file.is_file() and file.name not in _FREE and QUARANTINE not in file.parts
    }


def digest(file: Path) -> str:
    content = file.read_bytes()
    if file.name == "training_log.csv":
        rows = csv.DictReader(io.StringIO(content.decode()))
        content = "\n".join(str({**row, "seconds": ""}) for row in rows).encode()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def differences(place: Path, expected: Path) -> list[str]:
    """The files that are not what they are in the uncut run, or are in one of them alone."""
    found, wanted = contents(place), contents(expected)
    return [name for name in sorted(found.keys() | wanted.keys()) if found.get(name) != wanted.get(name)]


def half_written(place: Path, expected: Path) -> list[str]:
    """What a kill left that somebody would take for whole, and that is not.

    Drafts (``.tangeval-….unfinished``) and checkpoints that ``discover`` leaves out are nobody's.
    """
    nobodys = set(place.glob("*/.lock"))
    if list(place.glob("checkpoints/checkpoint-*")):
        cut_off = discover([str(place / "checkpoints")])[1]
        nobodys |= {file for skipped in cut_off for file in skipped.path.rglob("*")}
    faults = []
    for name in differences(place, expected):
        file = place / name
        if not file.is_file() or file in nobodys or file.name.endswith(".unfinished"):
            continue
        if name.startswith("race/"):  # its rounds write them anew
            good = file.suffix != ".parquet" or whole(file, expected / name)
        else:
            good = file.name in GROWING and whole(file, expected / name)
        if not good:
            faults.append(name)
    return faults


def whole(file: Path, expected: Path) -> bool:
    """Whether a file that is still to grow can be read, and says nothing that the end does not say."""
    text = file.read_bytes()
    if file.name == "judge.jsonl":  # a line that was cut off is asked for again
        return expected.read_bytes().startswith(text)
    if file.suffix == ".parquet":
        return bool(len(pd.read_parquet(file)))
    if file.suffix == ".json":
        return json.loads(expected.read_text("utf-8"))["settings"] == json.loads(text)["settings"]
    lines = text.decode().splitlines()
    if file.suffix == ".csv":
        return all(line.count(",") == lines[0].count(",") for line in lines)
    said = set(lines) - {line for line in lines if line.endswith("  likelihood.parquet")}
    return said <= set(expected.read_text("utf-8").splitlines())


# The soak


def prepare(work: Path) -> None:
    """Write the model, the two files of settings, and a file of texts to score."""
    quieten()  # before the libraries are imported
    from tests.support.tiny import make_tiny_model

    make_tiny_model(work / "model")
    (work / "finetune.yaml").write_text(FINETUNE, encoding="utf-8")
    (work / "study.yaml").write_text(STUDY, encoding="utf-8")
    poems = [example.reference for example in dataset.load("sample").split("test")]
    (work / "poems.txt").write_text("\n".join(poems), encoding="utf-8")
    (work / "nothing").mkdir()


def one_round(uncut: Uncut, work: Path, noise: random.Random, most: int) -> Round:
    """Kill a stage one to three times (at most ``most``), each time as it goes on, and let it end."""
    place, kills, faults = work / "place", [], []
    restore(place, uncut.before, uncut.stage)
    for _ in range(min(most, noise.choice((1, 1, 2, 3)))):
        where = killed(uncut, work, noise)
        if not where:
            break
        kills.append(where)
        faults += [f"half-written: {name}" for name in half_written(place, uncut.after)]
    process = begun(uncut.stage, place, work / "said")
    errors = process.communicate(timeout=PATIENCE)[1]
    if process.returncode:
        faults.append(f"ended with {process.returncode}: {errors.decode()[-500:]}")
    faults += [f"differs: {name}" for name in differences(place, uncut.after)]
    if not uncut.changes and (work / "said").read_bytes() != uncut.said:
        faults.append("differs: what it printed")
    return Round(tuple(kills), tuple(faults))


def soak(work: Path, kills: int, seed: int, only: Sequence[str] | None = None) -> bool:
    """Kill every stage, or ``only`` some, its share of ``kills`` times; print each round and a table; say whether all went well."""
    prepare(work)
    before, results = work / "nothing", []
    for stage in STAGES:
        once = uncut(stage, work, before)
        before = once.before if stage.until else once.after  # its second part begins where it did
        print(
            f"{stage.name}: uncut {once.begins:.1f} to {once.ends:.1f} s, {len(once.numbers)} changes",
            flush=True,
        )
        noise, left, began = (
            random.Random(f"{seed} {stage.name}"),
            math.ceil(stage.share * kills) if only is None or stage.name in only else 0,
            time.monotonic(),
        )
        rounds = []
        while left > 0:
            rounds.append(one_round(once, work, noise, left))
            left -= len(rounds[-1].kills)
            told = "; ".join(rounds[-1].kills) or "ended before the kill"
            print(f"  killed at {told}: {'; '.join(rounds[-1].faults) or 'the same bytes'}", flush=True)
        results.append((once, rounds, time.monotonic() - began))
    print_table(results)
    return not any(each.faults for _, rounds, _ in results for each in rounds)


def print_table(results: list[tuple[Uncut, list[Round], float]]) -> None:
    print("\n| stage | uncut | kills, of them while writing | restarts to the end | outcome | time |")
    print("| --- | --- | --- | --- | --- | --- |")
    total = 0
    for once, rounds, seconds in results:
        kills = [where for each in rounds for where in each.kills]
        total += len(kills)
        writing = sum(where.startswith("change") for where in kills)
        faulty = sum(bool(each.faults) for each in rounds)
        outcome = f"{faulty} of {len(rounds)} differ" if faulty else "the same bytes"
        print(
            f"| {once.stage.name} | {once.ends - once.begins:.1f} s | {len(kills)}, {writing} | {len(rounds)} "
            f"| {outcome} | {seconds:.0f} s |"
        )
    print(f"\n{total} kills", flush=True)


def _graded(body: dict[str, Any]) -> tuple[int, str]:
    """A judge's answer, a function of what it is asked."""
    grade = zlib.crc32(json.dumps(body, sort_keys=True).encode()) % 11
    return 200, json.dumps({"prosody": grade, "fluency": 10 - grade})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--kills", type=int, default=50, help="how many, of all stages together (default: 50)"
    )
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="kill in these stages alone")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # bytes are promised for one machine
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as work, closing(StubServer(port=_PORT, reply=_graded)):
        os.environ["TANGEVAL_CACHE"] = str(Path(work) / "cache")
        good = soak(Path(work), options.kills, options.seed, options.only)
    print(f"{time.monotonic() - began:.0f} s: {'nothing differs' if good else 'SOMETHING DIFFERS'}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
