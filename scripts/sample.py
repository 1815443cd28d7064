"""Make the embedded sample: Tang poems in HW5's three files, from chinese-poetry.

    python -m scripts.sample CHINESE_POETRY_FOLDER [--out tangeval/assets/sample] [--hw5 hw5]

In: the unpacked npm package chinese-poetry, and HW5's data, which it only avoids. Out: the
three files. Deterministic: the same package gives the same bytes.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

from scripts.corpus import Poem, is_regulated, leave_out, read
from tangeval.core.types import SPLITS
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang.text import clauses, fold, punctuate

#: HW5's own wording, so that a model fine-tuned on one set is asked the same on the other.
INSTRUCTION = "以下是一首唐詩的第一句話，請用你的知識判斷並完成整首詩。"
#: Where the anthology of 300 Tang poems does not fill the sample, these do.
POETS = "杜甫 李白 王維 白居易 李商隱 孟浩然 劉長卿 杜牧 劉禹錫 韋應物 岑參 王昌齡 賈島 溫庭筠 許渾 張籍"
RECORDS = 630  #: of the training file; ``dataset.load`` takes the last 30 as validation
TEST = {(5, 4): 4, (7, 4): 4, (5, 8): 4, (7, 8): 3}  #: (characters, clauses) → test poems
PER_POET = 40  #: so that no poet fills the sample


def shape(poem: Poem) -> tuple[int, int]:
    """Return characters to a clause, and clauses."""
    return len(poem.clauses[0]), len(poem.clauses)


def is_plain(poem: Poem) -> bool:
    """Say whether a poem is a quatrain or eight clauses long, with commas and full stops by turns.

    Characters outside the first ideograph block are refused too: they mark damaged or rare text.
    """
    return (
        is_regulated(poem)
        and shape(poem) in TEST
        and poem.text == punctuate(poem.clauses)
        and len(poem.folded) == len(poem.clauses)
        and all("\u4e00" <= character <= "\u9fff" for clause in poem.clauses for character in clause)
    )


def anthology(folder: Path) -> set[str]:
    """Return the folded clauses of the 300 Tang poems (唐詩三百首)."""
    file = next(folder.glob("**/mengxue/tangshisanbaishou.json"))
    poems = [poem for group in json.loads(file.read_text("utf-8"))["content"] for poem in group["content"]]
    return {clause for poem in poems for clause in clauses(fold("".join(poem["paragraphs"])))}


def select(poems: list[Poem], famous: set[str]) -> list[Poem]:
    """Return poems no two of which share a clause: the anthology's first, then those of ``POETS``.

    In the order of their keys, which says nothing of poet or form.
    """
    known = [poem for poem in poems if len(poem.folded & famous) >= 2]
    others = [poem for poem in poems if poem.author in POETS.split()]
    chosen: dict[bytes, Poem] = {}
    seen: set[str] = set()
    taken: Counter[str] = Counter()
    for poem in [*known, *sorted(others, key=lambda poem: poem.key)]:
        if len(chosen) == RECORDS + sum(TEST.values()):
            break
        if taken[poem.author] < PER_POET and seen.isdisjoint(poem.folded):
            chosen[poem.key] = poem
            seen |= poem.folded
            taken[poem.author] += 1
    return sorted(chosen.values(), key=lambda poem: poem.key)


def split(poems: list[Poem], trained_on: list[str]) -> tuple[list[Poem], list[Poem]]:
    """Part the poems into the training file's, validation at its end, and the test's.

    Test and validation have no clause of ``trained_on``; the test has the shapes of ``TEST``.
    """
    fresh, _ = leave_out(poems, trained_on)
    wanted = Counter(TEST)
    test = []
    for poem in fresh:
        if wanted[shape(poem)]:
            wanted[shape(poem)] -= 1
            test.append(poem)
    validation = [poem for poem in fresh if poem not in test][-dataset.VALIDATION["sample"] :]
    training = [poem for poem in poems if poem not in test and poem not in validation]
    return training + validation, test


def write(folder: Path, training: list[Poem], test: list[Poem]) -> None:
    """Write HW5's three files."""
    asked = [{"instruction": INSTRUCTION, "input": punctuate(p.clauses[:2])} for p in (*training, *test)]
    outputs = [{"output": punctuate(p.clauses[2:])} for p in training]
    records = [question | output for question, output in zip(asked, outputs, strict=False)]
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in ((dataset.TRAINING, records), (dataset.TESTING, asked[len(training) :])):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=4) + "\n", "utf-8")
    (folder / dataset.TRUTH).write_text("\n".join("\t".join(poem.clauses[2:]) for poem in test), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.sample", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("folder", type=Path, help="the unpacked npm package chinese-poetry")
    parser.add_argument("--out", type=Path, default=dataset.SAMPLE)
    parser.add_argument("--hw5", default="hw5", help="HW5's folder (default: where tangeval finds it)")
    options = parser.parse_args()
    hw5 = dataset.load(options.hw5, dataset.VALIDATION["hw5"])
    texts = {name: [e.input + e.reference for e in hw5.split(name)] for name in SPLITS}
    poems, _ = leave_out(filter(is_plain, read(options.folder, "tang")), texts["validation"] + texts["test"])
    # A model fine-tuned on HW5 may be scored on the sample, and the other way round.
    training, test = split(select(poems, anthology(options.folder)), texts["train"])
    write(options.out, training, test)
    print(f"{options.out}: {len(training)} training records, {len(test)} test poems")


if __name__ == "__main__":
    main()
