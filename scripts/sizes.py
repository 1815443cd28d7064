"""The sizes that the project allows itself: printed, and refused where they are exceeded.

python -m scripts.sizes
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

#: Of each part: the suffixes of its files, the lines that it is to have, and the most that it may have until then.
#: Where the two differ the aim is missed; the most is what stands, and rises by what a feature needs.
PYTHON, PAGE = (".py",), (".js", ".css", ".html", ".json")
PARTS = {
    "tangeval": (PYTHON, 10_000, 31_331),
    "tangeval/reporting/page/static": (PAGE, 1_800, 2_452),
    "finetune": (PYTHON, 1_000, 1_473),
    "tests": (PYTHON, 10_500, 26_471),
}
#: Where modules and functions are bounded too; Triton kernels have a parameter for each pointer and stride.
BOUNDED, APART = (
    ("tangeval", "finetune"),
    {Path("tangeval/decoding/cuda", name) for name in ("attention.py", "drawing.py", "rows.py")},
)
MODULE, FUNCTION, PARAMETERS = 350, 50, 8


def main() -> None:
    root = Path.cwd()
    for part, (suffixes, aim, most) in PARTS.items():
        count = sum(map(lines, files(root / part, suffixes)))
        missed = f", {count - aim:,} too many; {most:,} at most until then" if count > aim else ""
        print(f"{part}: {count:,} lines of {aim:,}{missed}")
    if found := list(excesses(root)):
        sys.exit("\n".join(found))


def excesses(root: Path) -> Iterator[str]:
    """Yield a line for each part, module and function under ``root`` that is larger than it may be."""
    for part, (suffixes, _, most) in PARTS.items():
        count = sum(map(lines, files(root / part, suffixes)))
        if count > most:
            yield f"{part}: {count:,} lines; at most {most:,}"
    for folder in BOUNDED:
        for file in files(root / folder, PYTHON):
            name = file.relative_to(root)
            if lines(file) > MODULE:
                yield f"{name}: {lines(file)} lines; at most {MODULE}"
            if name not in APART:
                yield from (f"{name}:{problem}" for problem in _functions(file))


def files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files of a folder with one of the suffixes, without libraries of others."""
    found = folder.rglob("*")
    return sorted(f for f in found if f.suffix in suffixes and "vendor" not in f.parts and f.is_file())


def lines(file: Path) -> int:
    return len(file.read_text("utf-8").splitlines())


def _functions(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        taken = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        parameters = len([name for name in taken if name not in ("self", "cls")])
        if length > FUNCTION:
            yield f"{node.lineno}: {node.name} has {length} lines; at most {FUNCTION}"
        if parameters > PARAMETERS:
            yield f"{node.lineno}: {node.name} has {parameters} parameters; at most {PARAMETERS}"


if __name__ == "__main__":
    main()
