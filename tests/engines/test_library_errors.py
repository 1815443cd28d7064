"""What a library makes of one checkpoint is that checkpoint's fault, and the others go on."""

import pytest

from tangeval import generation
from tangeval.core.errors import TangevalError
from tangeval.core.study import load_study
from tangeval.engines import device
from tangeval.models import adapters
from tangeval.models.tokens import encode_prompt
from tangeval.resolve import resolve
from tangeval.results.folder import RunFolder
from tests.support.study import write_study


@pytest.fixture
def resolved(tiny_model, tiny_run, tmp_path):
    return resolve(load_study(write_study(tmp_path, tiny_model, tiny_run, samples=1)))


def failing(function, error, on="checkpoint-10"):
    """The same function, but for one checkpoint a library fails in it."""
    current = []
    loaded = adapters.with_checkpoint

    def watched(base, checkpoint, *rest):
        current[:] = [checkpoint.name]
        return loaded(base, checkpoint, *rest)

    def fails(*arguments, **named):
        if current == [on]:
            raise error
        return function(*arguments, **named)

    return watched, fails


@pytest.mark.parametrize("where", ["decode_in_memory", "reference_nll", "decode_completion"])
@pytest.mark.parametrize(
    "error",
    [RuntimeError("size (7) must match"), IndexError("out of range"), KeyError("x"), TypeError("odd")],
)
def test_a_librarys_error_is_one_checkpoints(resolved, tmp_path, monkeypatch, where, error):
    watched, fails = failing(getattr(device, where), error)
    monkeypatch.setattr(adapters, "with_checkpoint", watched)
    monkeypatch.setattr(device, where, fails)
    with pytest.raises(
        TangevalError, match=f"checkpoint-10: a library cannot take it .{type(error).__name__}.*--keep-going"
    ):
        generation.decode(resolved, tmp_path / "one")
    (left_out,) = generation.decode(resolved, tmp_path / "two", keep_going=True)
    assert left_out.path.name == "checkpoint-10"
    names = [c["name"] for c in RunFolder(tmp_path / "two").manifest["checkpoints"]]
    assert names == ["base", "checkpoint-20"]


def test_memory_that_does_not_suffice_is_no_fault_of_a_checkpoint(resolved, tmp_path, monkeypatch):
    watched, fails = failing(device.decode_in_memory, MemoryError())
    monkeypatch.setattr(adapters, "with_checkpoint", watched)
    monkeypatch.setattr(device, "decode_in_memory", fails)
    with pytest.raises(MemoryError):
        generation.decode(resolved, tmp_path / "one", keep_going=True)


@pytest.mark.parametrize(
    "template",
    [
        "{% for %}",
        "{{ messages[9].content }}",
        "{{ 1 / 0 }}",
        "{{ raise_exception('no') }}",
        "{{ messages + 1 }}",
    ],
)
def test_a_template_that_fails_is_named_with_the_way_out(tokenizer, monkeypatch, template):
    monkeypatch.setattr(tokenizer, "chat_template", template)
    with pytest.raises(
        TangevalError, match=r"prompt: chat: the tokenizer's chat template fails.*prompt: hw5"
    ):
        encode_prompt(tokenizer, [{"role": "user", "content": "春"}])
