"""Make the table of facing characters from chinese-poetry, and measure the metric that reads it.

    python -m scripts.parallelism CHINESE_POETRY_FOLDER [--measure] [--out tangeval/assets/tang/facing.npz] [--hw5 hw5]

In: the unpacked npm package chinese-poetry, and the poems of HW5 and of the embedded sample, which the table
must not know. Out: the table; with ``--measure`` the table is left as it is. Prints docs/prosody.md's figures.
"""

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.linalg import eigsh
from scipy.stats import mannwhitneyu

from scripts.corpus import Poem, hold_out, is_regulated, leave_out, read, without_repeats
from tangeval.tasks.base import Dataset
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang import poems as verse
from tangeval.tasks.tang.parallelism import FACING, parallelism
from tangeval.tasks.tang.text import clauses, fold, punctuate

CHARACTERS, RANK = 3000, 64  #: the commonest, and numbers a character: 0.2 MB
SMOOTHING = 0.75  #: the power of a character's frequency by chance (Levy, Goldberg & Dagan 2015)
HELD_OUT = 2000  #: Tang poems: half of them chose the numbers above, the other half are reported


def gather(folder: Path, data: Sequence[Dataset]) -> tuple[list[Poem], list[Poem]]:
    """Return the Tang poems to count, and those held out; none shares a clause with the data, training included."""
    known = [e.input + "，" + e.reference for d in data for e in d.examples]
    poems, _ = leave_out(without_repeats(filter(is_regulated, read(folder, "tang"))), known)
    return hold_out(poems, HELD_OUT)


def count(poems: Sequence[Poem]) -> Counter[tuple[str, str]]:
    """Return how often two characters, folded, face each other in couplets that are neither first nor last."""
    facing: Counter[tuple[str, str]] = Counter()
    for parts in (clauses(fold(poem.text)) for poem in poems):
        for first, second in list(zip(parts[::2], parts[1::2], strict=False))[1:-1]:
            pairs = [pair for pair in zip(first, second, strict=True) if pair[0] != pair[1]]
            facing.update(pairs)
            facing.update(pair[::-1] for pair in pairs)
    return facing


def factor(facing: Counter[tuple[str, str]], size: int, rank: int) -> dict[str, np.ndarray]:
    """Return the table: the positive log-ratios of ``size`` characters as ``rank`` eigenvectors, in int8."""
    total: Counter[str] = Counter()
    for (one, _), times in facing.items():
        total[one] += times
    characters = sorted(total, key=lambda c: (-total[c], c))[:size]
    place = {character: row for row, character in enumerate(characters)}
    known = sorted((place[a], place[b], n) for (a, b), n in facing.items() if a in place and b in place)
    one, other, times = np.array(known).T
    often = np.bincount(one, times, len(characters))
    chance = often**SMOOTHING / (often**SMOOTHING).sum()
    ratios = np.maximum(np.log(times / often[one] / chance[other]), 0)
    matrix = coo_array((ratios, (one, other)), shape=2 * (len(characters),)).tocsr()
    values, vectors = eigsh((matrix + matrix.T) / 2, k=rank, v0=np.ones(len(characters)))
    vectors = vectors * np.sqrt(np.abs(values))
    step = np.abs(vectors).max() / 127
    return {
        "characters": np.array("".join(characters)),
        "vectors": np.round(vectors / step).astype(np.int8),
        "weights": (np.sign(values) * step**2).astype(np.float32),
    }


def measure(name: str, poems: Sequence[tuple[str, ...]], seed: int = 0) -> None:
    """Print a row: means of the poems of eight clauses, and how well their middle couplets are told from others."""
    noise, eight = random.Random(seed), [parts for parts in poems if len(parts) == 8]
    own, last, crossed = [parts[2:] for parts in eight], [parts[6:] for parts in eight], []
    for parts in eight:
        other = noise.choice([o for o in eight if o is not parts and len(o[0]) == len(parts[0])])
        crossed.append(tuple((parts if place % 2 == 0 else other)[place] for place in range(2, 8)))
    own, last, crossed = (
        parallelism(verse.read([""] * len(eight), list(map(punctuate, each))))
        for each in (own, last, crossed)
    )
    means = " | ".join(f"{np.mean(each):.2f}" for each in (own, last, crossed))
    told = (mannwhitneyu(own, others).statistic / len(eight) ** 2 for others in (last, crossed))
    print(f"| {name}, {len(eight)} | {means} | {' | '.join(f'{auc:.3f}' for auc in told)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.parallelism", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("folder", type=Path, help="the unpacked npm package chinese-poetry")
    parser.add_argument("--measure", action="store_true", help="measure the table that is there")
    parser.add_argument("--out", type=Path, default=FACING)
    parser.add_argument("--hw5", default="hw5", help="HW5's folder (default: where tangeval finds it)")
    options = parser.parse_args()
    hw5 = dataset.load(options.hw5, dataset.VALIDATION["hw5"])
    counted, held = gather(options.folder, [hw5, dataset.load("sample")])
    if not options.measure:
        table = factor(count(counted), CHARACTERS, RANK)
        np.savez(options.out, **table)
        print(f"{options.out}: {len(table['vectors'])} characters out of {len(counted)} poems")
    print(
        "| poems of eight clauses | middle | last | crossed | AUC: last | AUC: crossed |\n"
        + "| --- " * 6
        + "|"
    )
    measure("全唐詩, held out", [poem.clauses for poem in held[HELD_OUT // 2 :]])
    for split in ("train", "validation", "test"):
        measure(f"HW5, {split}", [clauses(e.input + "，" + e.reference) for e in hw5.split(split)])


if __name__ == "__main__":
    main()
