"""The chosen checkpoint as a folder that transformers alone loads, and generates from with the chosen setting.

In: ``Results`` of a folder where something was chosen. Out: a new folder with weights, tokenizer, prompt, setting and card;
for Ollama a ``Modelfile``. It is whole or not there, and none that is there is written into. Knows nothing of how the
choice was made.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tangeval.analysis.select import generation_config
from tangeval.core.errors import TangevalError
from tangeval.core.keeping import draft_name
from tangeval.core.knobs import KNOB, turned
from tangeval.core.libraries import needs, quieten
from tangeval.core.types import ADAPTER, Base, Checkpoint
from tangeval.engines.base import asked, examples_of
from tangeval.export import ollama
from tangeval.export.framing import Frame, frame, tokens
from tangeval.export.ollama import Outtype
from tangeval.models.folders import ADAPTER_CONFIG, read_object, weight_files
from tangeval.models.tokens import encode_prompt
from tangeval.reporting.notebook import Results
from tangeval.reporting.sharing.card import base_chosen, write_card
from tangeval.resolve import ResolvedStudy, resolve
from tangeval.results.files import no_url, write_json, write_text
from tangeval.results.folder import RunFolder


@dataclass(frozen=True)
class Exported:
    """What was written: of which checkpoint, as what, what a user's message is, and the commands that make a GGUF file."""

    folder: Path
    checkpoint: str
    kind: str
    message: str
    base: str
    commands: Sequence[str] = ()


@dataclass(frozen=True)
class _Chosen:
    resolved: ResolvedStudy
    checkpoint: Checkpoint
    setting: dict[str, Any]


def export(
    results: Results, to: str | Path, *, merge: bool = False, gguf: Outtype | None = None,
    leave_out: Sequence[str] = (), allow_pickle: bool = False,
) -> Exported:  # fmt: skip
    """Write the chosen checkpoint and setting to the new folder ``to``.

    ``merge`` adds an adapter into the base model's weights, as the engine does with ``load.merge``; ``gguf`` does too, and
    writes a Modelfile. ``leave_out`` are knobs that may be missing where transformers or Ollama does not have them.

    Raises:
        TangevalError: ``to`` is there; nothing was chosen, or the base model was; the weights are others than those that
            were evaluated; transformers or Ollama does not have a knob of the setting.
    """
    quieten()
    to = Path(to)
    no_url(to)
    if (
        to.is_symlink()
        or to.resolve() == Path.cwd()
        or (to.exists() and (not to.is_dir() or any(to.iterdir())))
    ):
        raise TangevalError(
            f"--to {to} is there already, and is not written into; give another folder, or move it away"
        )
    chosen = _chosen(results, allow_pickle)
    _check_knobs(chosen.setting, gguf, leave_out)
    draft = to.parent / draft_name()
    try:
        draft.mkdir(parents=True)
        found = _write(results, chosen, draft, merge or bool(gguf), gguf)
        draft.rename(to)
    except OSError as error:
        raise TangevalError(
            f"--to {to} cannot be written ({error.strerror or error}); make room, or give another folder"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    made = ollama.commands(to, gguf, f"{results.study.name}-{found.checkpoint}") if gguf else ()
    return replace(found, folder=to, commands=made)


def _chosen(results: Results, allow_pickle: bool) -> _Chosen:
    selection, file = results.selection, results.run.selection_file
    if not selection["setting"]:
        raise TangevalError(f"{file}: no setting was chosen; `tangeval select` chooses")
    name = selection["checkpoint"]["checkpoint"]
    resolved = resolve(results.run.study, allow_pickle=allow_pickle)
    checkpoint = next((each for each in resolved.checkpoints if each.name == name), None)
    if checkpoint is None:
        raise TangevalError(f"{file}: the study's folders have no {name} any longer; put it back")
    if checkpoint.kind == "base":
        raise base_chosen(results.run)
    if not checkpoint.folders:
        raise TangevalError(
            f"{file}: what a server holds was chosen; run a study that names the weights themselves as checkpoints"
        )
    manifest = results.run.manifest
    records, base = {c["name"]: c["fingerprint"] for c in manifest["checkpoints"]}, manifest["base_model"]
    if base["fingerprint"] == Base.in_training(resolved.study.base_model).digest:
        _check_tensors(resolved, checkpoint, records[name], results.run)
    elif checkpoint.kind == "adapter" and resolved.base_fingerprint != base["fingerprint"]:
        raise TangevalError(
            f"base_model: {resolved.base.name} is not the one that was evaluated with {name}; put that back"
        )
    elif resolved.fingerprints[name] != records[name]:
        raise TangevalError(
            f"{checkpoint.path or name}: its weights are not those that were evaluated; put them back"
        )
    return _Chosen(resolved, checkpoint, selection["setting"])


def _check_tensors(resolved: ResolvedStudy, checkpoint: Checkpoint, recorded: str, run: RunFolder) -> None:
    """Refuse a checkpoint that is not, bit for bit, what was evaluated while it was trained."""
    with needs("exporting"):
        from tangeval.engines.live import digest_of
        from tangeval.models import adapters, loading
    load = replace(resolved.study.loading(allow_pickle=resolved.allow_pickle), merge=False)
    model = None if checkpoint.kind == "full" else loading.load_model(resolved.base, load)
    with adapters.with_checkpoint(model, checkpoint, load) as whole:
        if digest_of(whole) != recorded:
            raise TangevalError(
                f"{checkpoint.path}: its weights are not, bit for bit, those that were evaluated while they were trained; "
                f"`tangeval run {run.study_file}` evaluates what was saved: export its results"
            )


def _check_knobs(setting: dict[str, Any], gguf: Outtype | None, leave_out: Sequence[str]) -> None:
    """Refuse a setting that would be another one elsewhere, unless its knobs may be left out."""
    if odd := set(leave_out) - set(KNOB):
        raise TangevalError(f"--leave-out {min(odd)}: there is no such knob; there are {', '.join(KNOB)}")
    lacking = {"transformers": [knob.name for knob in turned(setting) if not knob.hf]}
    lacking |= {"Ollama": ollama.unknown(setting)} if gguf else {}
    for whose, names in lacking.items():
        if lost := [name for name in names if name not in leave_out]:
            given = " ".join(f"--leave-out {name}" for name in lost)
            raise TangevalError(
                f"the chosen setting has {', '.join(f'{n}={setting[n]}' for n in lost)}, which {whose} does not have, and "
                f"without it the texts are others; give {given} to write the folder all the same, or choose a setting "
                "without it (decoding.only in the study)"
            )


def _write(results: Results, chosen: _Chosen, draft: Path, merge: bool, gguf: Outtype | None) -> Exported:
    """Fill the draft; what is returned names it."""
    with needs("exporting"):
        from tangeval.models import loading
    resolved, checkpoint = chosen.resolved, chosen.checkpoint
    tokenizer, examples = loading.load_tokenizer(resolved.base), examples_of(resolved)
    framed = _write_tokenizer(tokenizer, resolved, draft)
    base = "" if merge or checkpoint.kind == "full" else _base_name(resolved.base)
    _write_weights(chosen, draft, base)
    own = Base(checkpoint.name, str(checkpoint.folders[0])) if checkpoint.kind == "full" else resolved.base
    ends = list(loading.ends_of(own, tokenizer))
    pad = ends[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": ends, "pad_token_id": pad}
    write_json(draft / "generation_config.json", generation_config(chosen.setting) | ids)
    usage = _usage(resolved, framed, whole=not base)
    write_card(results, draft / "README.md", library="peft" if base else "transformers", usage=usage)
    if gguf:
        longest = max(len(encode_prompt(tokenizer, asked(resolved, example))) for example in examples)
        stops = [tokenizer.decode([token]) for token in ends]
        text = ollama.modelfile(chosen.setting, framed.go(tokenizer.bos_token), stops, longest)
        write_text(draft / ollama.MODELFILE, text)
    kind = "adapter" if base else "merged" if checkpoint.kind == "adapter" else "full"
    return Exported(draft, checkpoint.name, kind, _message(framed), base)


def _write_tokenizer(tokenizer: Any, resolved: ResolvedStudy, draft: Path) -> Frame:
    """Write the tokenizer with the study's prompt as its chat template, and hold it, read again, against every prompt."""
    from transformers import AutoTokenizer

    examples = examples_of(resolved)
    prompts = [asked(resolved, example) for example in examples]
    wanted = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    framed = frame(tokenizer, lambda example: asked(resolved, example), examples)
    tokenizer.chat_template = framed.jinja or tokenizer.chat_template
    tokenizer.save_pretrained(draft)
    read = AutoTokenizer.from_pretrained(draft)
    messages = [framed.messages(*each) for each in zip(prompts, examples, strict=True)]
    if [tokens(read, each) for each in messages] != wanted:
        raise TangevalError(
            f"base_model: the tokenizer of {resolved.base.name} is another once transformers has saved it and read it again; "
            "use another version of transformers"
        )
    return framed


def _base_name(base: Base) -> str:
    """What an adapter's configuration names its base by: a hub id, or where it lies on this machine."""
    if base.gguf:
        raise TangevalError(
            f"base_model: {base.name} is a GGUF file, which no adapter can name as its base; give --merge"
        )
    return str(Path(base.source).absolute()) if base.local else base.source


def _write_weights(chosen: _Chosen, draft: Path, base: str) -> None:
    """Write an adapter that names its ``base``; without one the whole model, the adapter merged as the engine does."""
    from transformers import GenerationConfig

    from tangeval.models import adapters, loading

    resolved, checkpoint = chosen.resolved, chosen.checkpoint
    load = replace(resolved.study.loading(allow_pickle=resolved.allow_pickle), merge=True, compile=False)
    if base or checkpoint.kind == "full":
        with adapters.folder_of(checkpoint) as folder:
            assert folder
            _copy(folder, draft, [ADAPTER] if base else [])
            if base:
                about = read_object(folder / ADAPTER_CONFIG) or {}
                write_json(draft / ADAPTER_CONFIG, about | {"base_model_name_or_path": base})
        return
    if load.quantization == "int8":
        raise TangevalError(
            "--merge: the study holds the base model in int8, and merging into few bits changes outputs; leave --merge out"
        )
    model = loading.load_model(resolved.base, load)
    with adapters.with_checkpoint(model, checkpoint, load, resolved.fingerprints[checkpoint.name]) as adapted:
        whole: Any = adapted.base_model.unload()  # type: ignore[operator, union-attr]
        whole.generation_config = GenerationConfig()  # the setting's is written in its place
        ends = [whole.get_input_embeddings(), whole.get_output_embeddings()]
        if len({end.weight.data_ptr() for end in ends if end is not None}) > 1:
            whole.config.tie_word_embeddings = False  # an adapter may have saved one of two that were tied
        whole.save_pretrained(draft)


def _copy(source: Path, draft: Path, names: Sequence[str]) -> None:
    """Copy an adapter's weights, or a full model's with its configuration."""
    files = [source / name for name in names] or [
        source / "config.json", *source.glob("model.safetensors.index.json"), *(weight_files(source) or ()),
    ]  # fmt: skip
    if missing := [file for file in files if not file.is_file()]:
        raise TangevalError(
            f"{missing[0]} is not there: its weights are a pickle; save them as safetensors"
            + ", or give --merge" * bool(names)
        )
    for file in files:
        shutil.copyfile(file, draft / file.name)


def _usage(resolved: ResolvedStudy, framed: Frame, *, whole: bool) -> str:
    """Python that loads the folder and writes one text; … is what a user asks."""
    from tangeval.models import loading

    load = resolved.study.loading()
    dtype, few = str(loading.dtype_of(load)).removeprefix("torch."), "none" if whole else load.quantization
    names, how = ["AutoModelForCausalLM", "AutoTokenizer"], f'dtype="{dtype}"'
    if few != "none":
        names.append("BitsAndBytesConfig")
        nf4 = f'load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="{dtype}"'
        how += f", quantization_config=BitsAndBytesConfig({nf4 if few == 'nf4' else 'load_in_8bit=True'})"
    peft, model = "", f"model = AutoModelForCausalLM.from_pretrained(folder, {how})"
    if not whole:
        # transformers' own reader of adapters loses what is no LoRA's two factors (DoRA's magnitudes), and a model fills
        # what a setting leaves open from its base's generation_config.json.
        names.append("GenerationConfig")
        peft = "from peft import PeftConfig, PeftModel\n"
        model = f"""\
base = PeftConfig.from_pretrained(folder).base_model_name_or_path
model = AutoModelForCausalLM.from_pretrained(base, {how})
model.generation_config = GenerationConfig.from_pretrained(folder)
model = PeftModel.from_pretrained(model, folder)"""
    return f"""\
{peft}from transformers import {", ".join(sorted(names))}

folder = "."
tokenizer = AutoTokenizer.from_pretrained(folder)
{model}
messages = [{{"role": "user", "content": "…"}}]  # {_message(framed)}
asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
written = model.generate(**asked.to(model.device))
print(tokenizer.decode(written[0, asked["input_ids"].shape[1]:], skip_special_tokens=True))"""


def _message(framed: Frame) -> str:
    """What a user's message is."""
    if not framed.parts:
        return "the task's messages"
    return "the whole prompt, as the task writes it" if framed.whole else "the input of an example"
