"""docs/glossary.md, of what the page's question marks say; a test compares the two.

python -m scripts.glossary
"""

from pathlib import Path
from typing import Any

from tangeval import tasks
from tangeval.core.words import glossary

FILE = Path(__file__).parents[1] / "docs" / "glossary.md"
_HEAD = """# Glossary · 詞彙

One meaning a word: what the page's question marks say, in both languages. Verse follows 白日依山盡，黃河入海流。 Made by `python -m scripts.glossary` of `tangeval/words/glossary.json`.

| word · 詞 | means | 意思 | passes · 合 | fails · 不合 |
| --- | --- | --- | --- | --- |
"""


def main() -> None:
    FILE.write_text(text(), "utf-8")


def text() -> str:
    """Return the glossary as Markdown."""
    return _HEAD + "".join(
        f"| {' | '.join(row)} |\n" for row in map(_row, *zip(*glossary().items(), strict=True))
    )


def _row(word: str, entry: dict[str, Any]) -> list[str]:
    metrics = tasks.load("tang").metrics
    label = entry.get("name") or (metrics[word].label if word in metrics else {})
    names = " · ".join(dict.fromkeys((f"`{word}`", *label.values())))
    examples = [_both(entry.get(side, "")) for side in ("yes", "no")]
    return [names, entry["en"], entry["zh"], *examples]


def _both(example: Any) -> str:
    return example if isinstance(example, str) else " · ".join(dict.fromkeys(example.values()))


if __name__ == "__main__":
    main()
