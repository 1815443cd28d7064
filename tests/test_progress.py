import io

from rich.console import Console

from tangeval.progress import Decoding


def shown(terminal: bool, text: str) -> str:
    out = io.StringIO()
    with Decoding(Console(file=out, force_terminal=terminal, width=150), 10) as progress:
        progress.told -= 60
        progress.advance("checkpoint-[7]", 4, text)
        progress.bar.refresh()
    return out.getvalue()


def test_a_text_that_looks_like_markup_is_shown_as_it_is():
    for terminal in (True, False):
        out = shown(terminal, "[/INST] [red]\n春")
        assert "[/INST] [red] 春" in out
        assert "checkpoint-[7]" in out
    assert "decoded 4 streams" in out


def test_a_log_gets_plain_lines_and_no_bar():
    out = shown(terminal=False, text="春眠不覺曉")
    assert "checkpoint-[7]: 4 of 10, " in out
    assert "\x1b" not in out
