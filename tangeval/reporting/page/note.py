"""The author's note: Markdown → nodes that the page makes of names it knows.

In: CommonMark. Out: nested lists ``[tag, child, …]`` whose leaves are texts. HTML in it is text, a link is its words and
its address, and a picture is its words: nothing of a note runs or is loaded.
"""

from typing import Any

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

#: Elements of the page by Markdown's; headings are below the page's own.
TAGS = {
    "paragraph": "p", "heading": "h3", "bullet_list": "ul", "ordered_list": "ol", "list_item": "li",
    "blockquote": "blockquote", "strong": "strong", "em": "em", "table": "table", "thead": "thead", "tbody": "tbody",
    "tr": "tr", "th": "th", "td": "td",
}  # fmt: skip


def nodes(text: str) -> list[Any]:
    """Return a note's nodes, in order."""
    tree = SyntaxTreeNode(MarkdownIt("commonmark", {"html": False}).enable("table").parse(text))
    return [made for child in tree.children for made in _made(child)]


def _made(node: SyntaxTreeNode) -> list[Any]:
    children = [made for child in node.children for made in _made(child)]
    if node.type in TAGS:
        return [[TAGS[node.type], *children]]
    if node.type == "link":
        return [*children, f" ({node.attrs['href']})"]
    if node.type in ("code_inline", "fence", "code_block"):
        return [["code" if node.type == "code_inline" else "pre", node.content]]
    if node.type in ("softbreak", "hardbreak"):
        return ["\n"]
    return children or [node.content] * bool(node.content)
