"""What a machine and a study have, and what they lack: a line each, with the remedy.

In: nothing, or a study. Out: ``Finding``s. A study is checked by the very calls that ``run`` makes before it
decodes; what they raise or warn of is told here instead. Nothing is written, no weights are loaded, and no extra
need be installed.
"""

import os
import platform
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from packaging.requirements import Requirement

from tangeval import __version__, engines, steps, tasks
from tangeval.core.errors import TangevalError
from tangeval.core.libraries import needs, quieten
from tangeval.core.types import ADAPTER, Base, Checkpoint
from tangeval.engines.base import asked, examples_of
from tangeval.engines.knob_checks import tried
from tangeval.models.adapter_base import hub_cache
from tangeval.models.adapter_kinds import unsupported
from tangeval.models.checkpoints import Skipped, discover, trained_on
from tangeval.models.folders import ADAPTER_CONFIG, read_object, tensors, weight_files
from tangeval.models.tokens import encode_prompt
from tangeval.resolve import ResolvedStudy
from tangeval.steps import AnyStudy, Options

_Made = TypeVar("_Made")
_SHOWN = 5  # names of a list


@dataclass(frozen=True)
class Finding:
    """What was looked at and what was found; ``ok`` is None for a fact that is neither well nor wrong."""

    part: str
    said: str
    remedy: str = ""
    ok: bool | None = None


# The machine


def machine() -> Iterator[Finding]:
    """Yield what there is for evaluating: versions, extras, GPU, models, fonts, data."""
    import psutil

    from tangeval.reporting.style import chinese_font

    quieten()
    memory = psutil.virtual_memory().total / 2**30
    system = (
        f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores, {memory:.0f} GiB"
    )
    yield Finding("machine", system)
    yield from _extras()
    yield _gpu()
    yield _hub()
    font, remedy = chinese_font(), "install one, such as Noto Sans CJK (apt install fonts-noto-cjk)"
    yield (
        Finding("font", font, ok=True)
        if font
        else Finding("font", "none has Chinese characters: names of them are boxes in pictures", remedy)
    )
    for name in ("sample", "hw5"):
        found, told = _tried(f"data {name}", lambda name=name: tasks.load("tang").load(name, None))  # type: ignore[misc]
        yield (
            Finding(f"data {name}", f"{len(found.examples)} examples", ok=True)
            if found
            else Finding(told[0].part, told[0].said)
        )


def _extras() -> Iterator[Finding]:
    """The libraries of each extra: missing is a fact, too old is wrong."""
    try:
        named = [Requirement(each) for each in metadata.requires("tangeval") or ()]
    except metadata.PackageNotFoundError:
        yield Finding("tangeval", "not installed: its extras are not known", "pip install tangeval", ok=False)
        return
    for extra in ("", "local", "train", "server", "ray", "gemma"):
        own = [each for each in named if _of(each, extra) and each.name != "tangeval"]
        versions = {each: _version(each.name) for each in own}
        old = [
            f"{each.name} {found} ({each.specifier})"
            for each, found in versions.items()
            if found and found not in each.specifier
        ]
        missing = [each.name for each, found in versions.items() if not found]
        part = f"extra {extra}" if extra else f"tangeval {__version__}"
        target = f"'tangeval[{extra}]'" if extra else "tangeval"
        if old or missing:
            said = "; ".join(
                [f"not installed: {', '.join(missing)}"] * bool(missing)
                + [f"too old: {', '.join(old)}"] * bool(old)
            )
            yield Finding(part, said, f"pip install -U {target}", ok=False if old or not extra else None)
        else:
            yield Finding(
                part, ", ".join(f"{each.name} {found}" for each, found in versions.items()), ok=True
            )


def _of(requirement: Requirement, extra: str) -> bool:
    without = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    return (
        without
        if not extra
        else not without and bool(requirement.marker and requirement.marker.evaluate({"extra": extra}))
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _gpu() -> Finding:
    """The GPU that models are put on, or why none is."""
    try:
        import torch
    except ImportError as error:
        broken = _version("torch") is not None
        remedy = (
            "install torch again, as pytorch.org says for this machine"
            if broken
            else "pip install 'tangeval[local]'"
        )
        return Finding(
            "GPU",
            f"torch cannot be imported ({error})" if broken else "torch is not installed",
            remedy,
            ok=False if broken else None,
        )
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        bits = "" if torch.cuda.is_bf16_supported(including_emulation=False) else ", without bfloat16"
        count = torch.cuda.device_count()
        several = f"{count} GPUs, the first a " if count > 1 else ""
        return Finding("GPU", f"{several}{torch.cuda.get_device_name(0)}, {memory:.0f} GiB{bits}", ok=True)
    from tangeval.models.loading import unused_gpu

    if found := unused_gpu():
        return Finding("GPU", *found, ok=False if found[1] else None)
    return Finding("GPU", "none is seen here: models run on the CPU")


def _hub() -> Finding:
    """The models in the hub's cache, found without its library."""
    cache = hub_cache()
    names = sorted(f.name.removeprefix("models--").replace("--", "/") for f in cache.glob("models--*"))
    told = ", ".join(names[:_SHOWN]) + f" and {len(names) - _SHOWN} more" * (len(names) > _SHOWN)
    return Finding("hub's cache", f"{cache}: {told or 'no models'}")


# A folder of checkpoints


def checkpoints(
    folder: str | Path, *, allow_pickle: bool = False
) -> tuple[list[tuple[Checkpoint, int | None]], tuple[Skipped, ...]]:
    """Return the checkpoints of a folder with how many texts each was trained on (None: no record), and those left out."""
    found, skipped = discover([str(folder)], allow_pickle=allow_pickle)
    records = [trained_on(checkpoint) for checkpoint in found]
    return [(c, None if r is None else len(r.texts)) for c, r in zip(found, records, strict=True)], skipped


# A study


def of_study(study: AnyStudy, overrides: Sequence[str], options: Options) -> Iterator[Finding]:
    """Yield what ``run`` would find of a study before it decodes, and what tells apart what goes wrong later."""
    resolved, told = _tried("study", lambda: steps.named(study, overrides, options))
    if resolved is None:
        yield from told
        return
    for each in resolved.skipped:
        yield Finding("left out", f"{each.path}: {each.reason}", ok=False if each.lost else None)
    count = len(resolved.study.decoding.settings())
    yield Finding(
        "study",
        f"{len(resolved.checkpoints)} checkpoints × {count} settings, data {resolved.dataset.folder}",
        ok=True,
    )
    yield from _done("selection and random baseline", lambda: steps.check(resolved, options))
    opened, told = _tried("engine", lambda: engines.make(resolved))
    yield from told
    if opened is None:
        return
    _, told = _tried("engine", opened.__enter__)
    yield from told
    if told:
        return
    try:
        if resolved.served:
            yield from _of_server(opened, resolved)
        else:
            yield from _done("context, n-gram ban, spelling", opened.check)
            found, told = _tried("model", lambda: list(_of_weights(resolved)))
            yield from [*told, *(found or ())]
    finally:
        opened.__exit__(None, None, None)


def _of_server(opened: Any, resolved: ResolvedStudy) -> Iterator[Finding]:
    """Whether a server is there with the study's models, and what it honours; it is asked for the short texts that ``run`` asks for."""
    if wrong := _tried("server", opened.check)[1]:
        yield from wrong
        return
    yield Finding("server", f"{opened.describe().name}; it serves what the study names", ok=True)
    yield from _done("knobs", opened.probe, f"honoured: {', '.join(tried(resolved.study.decoding))}")


def _of_weights(resolved: ResolvedStudy) -> Iterator[Finding]:
    """What the base model's files say of prompts and ends, and each checkpoint's of its base and shapes."""
    with needs("decoding"):
        from tangeval.models import loading
    base, decoding = resolved.base, resolved.study.decoding
    config, tokenizer = loading.load_config(base), loading.load_tokenizer(base)
    prompts = [encode_prompt(tokenizer, asked(resolved, example)) for example in examples_of(resolved)]
    ids = prompts[0]
    yield Finding("prompt", f"{len(ids)} tokens, the last ten {ids[-10:]}: {tokenizer.decode(ids[-10:])!r}")
    limit, length = loading.context_length(config), int(max(decoding.max_length))
    yield Finding(
        "positions", f"{max(map(len, prompts))} of the longest prompt + {length} of {limit or 'no limit'}"
    )
    yield Finding("n-gram ban", f"no_repeat_ngram_size {decoding.no_repeat_ngram_size}; the prompt counts")
    yield _ends(loading.declared_ends(base, config, tokenizer), config.get_text_config().vocab_size)
    shapes = loading.shapes(base, config)
    for checkpoint in resolved.checkpoints:
        yield _of_checkpoint(checkpoint, base, shapes)


def _ends(named: dict[str, Any], size: int) -> Finding:
    """The ids that end a text, by the file that names them."""
    said = ", ".join(f"{where} {ids}" for where, ids in named.items())
    ids = [
        i
        for several in named.values()
        for i in (several if isinstance(several, list) else [several])
        if i is not None
    ]
    if not ids:
        return Finding(
            "EOS", f"{said}: nothing ends a text", "set eos_token in tokenizer_config.json", ok=False
        )
    if wrong := [i for i in ids if not isinstance(i, int) or not 0 <= i < size]:
        return Finding(
            "EOS", f"{said}: {wrong[0]!r} is no token of {size}", "correct the file that names it", ok=False
        )
    return Finding("EOS", said, ok=True)


def _of_checkpoint(checkpoint: Checkpoint, base: Base, shapes: dict[str, tuple[int, ...]]) -> Finding:
    """A checkpoint's base, and whether its tensors fit it."""
    if checkpoint.members:  # which are alike
        checkpoint = replace(checkpoint, path=checkpoint.members[0])
    if checkpoint.path is None:
        return Finding(checkpoint.name, f"{base.name}: {len(shapes)} tensors", ok=True)
    adapter = checkpoint.kind == "adapter"
    files = [checkpoint.path / ADAPTER] if adapter else weight_files(checkpoint.path) or []
    held = {name: entry["shape"] for file in files for name, entry in (tensors(file) or {}).items()}
    about = read_object(checkpoint.path / ADAPTER_CONFIG) or {}
    said = f"{checkpoint.kind}, {len(held)} tensors"
    if adapter:
        said = f"{about.get('peft_type')} r {about.get('r')} on {about.get('base_model_name_or_path')}, {len(held)} tensors"
    if adapter and (reason := unsupported(checkpoint.path)):
        return Finding(checkpoint.name, f"{said}; {reason}", "leave it out, or give --keep-going", ok=False)
    if wrong := [name for name, shape in held.items() if not _fits(name, shape, shapes)]:
        remedy = f"set base_model to the one it was trained on; {base.name} is another"
        return Finding(
            checkpoint.name, f"{said}; {wrong[0]} {held[wrong[0]]} does not fit {base.name}", remedy, ok=False
        )
    return Finding(checkpoint.name, said, ok=True)


def _fits(name: str, shape: list[int], shapes: dict[str, tuple[int, ...]]) -> bool:
    """Whether a LoRA's tensor has a weight beside it with its outer size; of other tensors nothing is said."""
    module, lora, side = name.removeprefix("base_model.model.").partition(".lora_")
    if not lora or side.partition(".")[0] not in ("A", "B") or len(shape) != 2:
        return True
    return shape[1 if side[0] == "A" else 0] in shapes.get(f"{module}.weight", ())


def _done(part: str, check: Callable[[], Any], well: str = "as it should be") -> list[Finding]:
    """A check's complaints, or that it passed."""
    return _tried(part, check)[1] or [Finding(part, well, ok=True)]


def _tried(part: str, make: Callable[[], _Made]) -> tuple[_Made | None, list[Finding]]:
    """What a call returns, and what it raised or warned of: the messages hold the remedies."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            made, said = make(), list[str]()
        except TangevalError as error:
            made, said = None, [str(error)]
        except Exception as error:  # who asks for help must not be refused it
            made, said = (
                None,
                [f"{type(error).__name__}: {error}; an error of tangeval's own: please report it"],
            )
    said += [
        str(each.message) for each in heard if each.category is UserWarning and "tangeval" in each.filename
    ]
    return made, [Finding(part, each, ok=False) for each in said]
