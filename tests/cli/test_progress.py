import io
import json
import re

import pytest

from tangeval.cli.progress import Decoding, SafeConsole
from tangeval.core.words import LANGUAGES, speaking


def show(decoding: Decoding, name: str, ended: int, text: str, waited: float = 60) -> None:
    """One step of a decoding whose last update is ``waited`` seconds old."""
    with decoding as on_progress:
        decoding.updated -= waited
        on_progress(name, ended, text)
        decoding.bar.refresh()


def shown(terminal: bool, text: str) -> str:
    out = io.StringIO()
    show(Decoding(SafeConsole(file=out, force_terminal=terminal, width=150), 10), "checkpoint-[7]", 4, text)
    return out.getvalue()


def test_a_text_that_looks_like_markup_is_shown_as_it_is():
    for terminal in (True, False):
        out = shown(terminal, "[/INST] [red]\n春")
        assert "[/INST] [red] 春" in out
        assert "checkpoint-[7]" in out
    assert "decoded 4 sequences" in out


def test_a_log_gets_plain_lines_and_no_bar():
    out = shown(terminal=False, text="春眠不覺曉")
    assert "checkpoint-[7]: 4 of 10, " in out
    assert "min left" in out
    assert "\x1b" not in out


def test_a_dumb_terminal_gets_the_lines_of_a_log(monkeypatch):
    """As a notebook that asks for them: it keeps every step of a bar."""
    monkeypatch.setenv("TERM", "dumb")
    out = shown(terminal=True, text="春眠不覺曉")
    assert "checkpoint-[7]: 4 of 10, " in out
    assert "\x1b" not in out


def test_progress_is_told_in_chinese():
    with speaking("zh-TW"):
        out = shown(terminal=False, text="春眠不覺曉")
    assert "10 條中的 4 條" in out
    assert "還要" in out
    assert "解碼了 4 條序列" in out


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_checkpoint_at_hand_is_counted_within_a_narrow_bar(lang):
    out = io.StringIO()
    with speaking(lang):
        console = SafeConsole(file=out, force_terminal=True, width=80)
        show(Decoding(console, 10, ["base", "checkpoint-7"]), "checkpoint-7", 4, "")
    assert "…" not in out.getvalue()


def test_nothing_is_said_of_a_rate_before_a_sequence_ended():
    out = io.StringIO()
    show(Decoding(SafeConsole(file=out), 10, ["base"]), "base", 0, "春")
    assert re.search(r"base \(1 of 1\): 0 of 10, [\d.]+ GiB 春", out.getvalue())


def test_the_checkpoint_at_hand_is_counted():
    out = io.StringIO()
    show(Decoding(SafeConsole(file=out), 10, ["base", "checkpoint-7"]), "checkpoint-7", 4, "")
    assert "checkpoint-7 (2 of 2): 4 of 10" in out.getvalue()


def test_machines_get_a_json_object_a_line(capsys):
    decoding = Decoding(SafeConsole(quiet=True), 10, ["base"], "machines")
    decoding.began -= 2
    show(decoding, "base", 4, "[red]春\n眠")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["decoding", "decoded"]
    assert (lines[0]["checkpoint"], lines[0]["done"], lines[0]["total"]) == ("base", 4, 10)
    assert lines[0]["text"] == "[red]春 眠"
    assert lines[0]["seconds_left"] == pytest.approx(3, abs=1)


def test_nobody_is_told_nothing(capsys):
    show(Decoding(SafeConsole(quiet=True), 10, ["base"], "nobody"), "base", 4, "春")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("terminal", [True, False])
def test_memory_is_asked_for_only_when_something_is_shown(monkeypatch, terminal):
    monkeypatch.setattr("psutil.Process", lambda: pytest.fail("asked between updates"))
    decoding = Decoding(SafeConsole(file=io.StringIO(), force_terminal=terminal), 1000)
    with decoding as on_progress:
        decoding.updated += 60
        for _ in range(1000):
            on_progress("base", 1, "春")
    assert decoding.done == 1000
