"""Make the sample of the task ``songci``: 宋詞 of eight tunes, from chinese-poetry.

    python -m scripts.songci CHINESE_POETRY_FOLDER

In: the unpacked npm package. Out: ``assets/tasks/songci/ci.jsonl``. Deterministic.
"""

import json
import sys
from collections import Counter
from pathlib import Path

from opencc import OpenCC

from tangeval.core.types import ASSETS
from tangeval.tasks.tang.text import clauses

#: The tunes and the lengths of their lines, as most have them.
TUNES = {
    "浣溪沙": "777777", "菩薩蠻": "77555555", "西江月": "66766676", "卜算子": "55755575", "清平樂": "45766666",
    "鷓鴣天": "777733777", "好事近": "56657565", "點絳脣": "474545345",
}  # fmt: skip
EACH, PER_POET = 56, 4  #: poems of a tune, and of a poet in it


def main() -> None:
    folder = Path(sys.argv[1]) / "dist" / "songci"
    files = [folder / f"ci.song.{number}.json" for number in range(0, 22_000, 1000)]
    convert = OpenCC("s2t").convert
    kept, poets, seen = list[dict[str, str]](), Counter[tuple[str, str]](), set[str]()
    for file in filter(Path.is_file, files):
        for poem in json.loads(file.read_text("utf-8")):
            tune, author = convert(poem["rhythmic"]), convert(poem["author"])
            first, *rest = [convert(line) for line in poem["paragraphs"]] or [""]
            lengths = "".join(str(len(clause)) for clause in clauses("".join([first, *rest])))
            key = "".join(clauses(first))
            if (
                lengths != TUNES.get(tune)
                or not rest
                or "□" in "".join(rest)
                or key in seen
                or poets[tune, author] == PER_POET
            ):
                continue
            if poets[tune, ""] < EACH:
                poets.update([(tune, ""), (tune, author)])
                seen.add(key)
                pattern = ",".join(lengths[len(clauses(first)) :])
                kept.append(
                    {
                        "tune": tune,
                        "author": author,
                        "first": first,
                        "rest": "".join(rest),
                        "pattern": pattern,
                    }
                )
    text = "".join(f"{json.dumps(poem, ensure_ascii=False)}\n" for poem in kept)
    (ASSETS / "tasks" / "songci" / "ci.jsonl").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
