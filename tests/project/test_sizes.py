"""What `make check` refuses, and the layers that docs/design.md and pyproject.toml both name."""

import re
import tomllib
from pathlib import Path

import grimp

from scripts import sizes

ROOT = Path(__file__).parents[2]


def test_what_is_too_large_is_named(tmp_path):
    module = tmp_path / "tangeval" / "large.py"
    module.parent.mkdir()
    parameters = ", ".join(f"a{n}" for n in range(9))
    body = "\n".join(["    pass"] * 49)
    module.write_text(
        f"def fits(self, {parameters[4:]}):\n{body}\n\n\ndef many({parameters}):\n    pass\n\n\n"
        f"def long():\n    pass\n{body}\n" + "x = 1\n" * 400
    )
    found = list(sizes.excesses(tmp_path))
    assert found == [
        "tangeval/large.py: 507 lines; at most 350",
        "tangeval/large.py:53: many has 9 parameters; at most 8",
        "tangeval/large.py:57: long has 51 lines; at most 50",
    ]
    (tmp_path / "finetune").mkdir()
    (tmp_path / "finetune" / "much.py").write_text("# a line\n" * 2001)
    assert f"finetune: 2,001 lines; at most {sizes.PARTS['finetune'][2]:,}" in list(sizes.excesses(tmp_path))


def test_the_designs_table_of_layers_is_import_linters():
    """The first column names the folders in backticks, from the top down."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    declared = [set(layer.split(" | ")) for layer in contracts[0]["layers"]]
    section = (ROOT / "docs" / "design.md").read_text("utf-8").split("## The layers")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert [set(re.findall(r"`(\w+)`", row)) for row in rows] == declared


def test_the_modules_of_the_command_line_are_a_tree():
    """What is imported late or for types alone counts too."""
    graph = grimp.build_graph("tangeval", cache_dir=None)
    for module in graph.find_descendants("tangeval.cli"):
        for imported in graph.find_modules_directly_imported_by(module):
            assert graph.find_shortest_chain(imported, module) is None
