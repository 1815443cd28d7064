"""The author's note: Markdown that cannot do anything."""

from tangeval.reporting.page.note import TAGS, nodes


def tags(made):
    return {made[0]} | set().union(*map(tags, made[1:])) if isinstance(made, list) else set()


def test_markdown_becomes_nodes():
    assert nodes("# A\n\nb *c* **d** `e`\n\n- f\n- g") == [
        ["h3", "A"],
        ["p", "b ", ["em", "c"], " ", ["strong", "d"], " ", ["code", "e"]],
        ["ul", ["li", ["p", "f"]], ["li", ["p", "g"]]],
    ]


def test_html_is_text_and_a_link_its_address():
    text = "<script>x</script>\n\n<b onclick=y>z</b> [words](javascript:x) [site](https://a.b) ![alt](https://c.d/e.png)"
    made = nodes(text)
    assert set().union(*map(tags, made)) <= {*TAGS.values(), "code", "pre"}
    assert "<script>x</script>" in str(made)
    assert "site" in str(made)
    assert "(https://a.b)" in str(made)
    assert "e.png" not in str(made)
