"""A file of outputs made elsewhere → one text for each example of a declared task.

In: text with an output a line, or records (.jsonl, .json, .csv, .tsv, .parquet) with the text as ``predict``, ``output``
or ``text``, and the example as ``id`` or by the fields that are given. Without either they are in the examples' order.
Out: ``Outputs``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tangeval.core.errors import TangevalError
from tangeval.core.types import Example
from tangeval.tasks.base import Outputs
from tangeval.tasks.declared.readers import lines, read, value

_TEXTS = ("predict", "output", "text")


def read_outputs(
    given: Sequence[str], file: Path, name: str, examples: Sequence[Example], others: Sequence[Example]
) -> Outputs:
    """Return the outputs of ``file``, called ``name``; ``given`` are the fields that make an example's input.

    Raises:
        TangevalError: it cannot be read, or outputs and ``examples`` are no pairs; with the line or record.
    """
    if file.suffix in ("", ".txt"):
        records: Sequence[tuple[str, Mapping[str, str]]] = [
            (f"{file}, line {n}", {"text": line}) for n, line in enumerate(lines(file), 1)
        ]
    else:
        records = list(read(file.name, file.parent))
    key = next((k for k in ("id", given[0]) if records and k in records[0][1]), "")
    fields = [key] if key in ("", "id") else list(given)
    places = {e.id if key == "id" else e.input: place for place, e in enumerate(examples)}
    elsewhere = {e.id if key == "id" else e.input: e.split for e in others}
    texts: dict[int, str] = {}
    for number, (where, record) in enumerate(records):
        wanted = "\n".join(value(record, field, where) for field in fields) if key else ""
        place = places.get(wanted) if key else number
        if place is None or place in texts:
            what = "answered twice" if place in texts else elsewhere.get(wanted, "in no split")
            raise TangevalError(
                f"{where}: {key} {wanted!r:.60} is {what}; give one output for each of its split"
            )
        field = next((each for each in _TEXTS if each in record and each not in fields), "predict")
        texts[place] = value(record, field, where).strip()
    if len(texts) != len(examples) or max(texts) >= len(examples):
        raise TangevalError(f"{file}: {len(texts)} outputs for {len(examples)} examples; give one for each")
    way = f"by {', '.join(fields)}" if key else "by order"
    said = f"{len(texts)} outputs for {len(examples)} examples: {way}"
    return Outputs(name, tuple(texts[place] for place in range(len(examples))), said, ())
