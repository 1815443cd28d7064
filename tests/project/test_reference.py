"""What is kept of a results folder for `results/reference/`."""

import json

import pandas as pd
from PIL import Image

from benchmarks import reference
from tangeval import api
from tangeval.results.files import write_text
from tests.support.folders import NAME, make_results


def test_what_is_kept_is_what_the_folder_says(tmp_path, monkeypatch):
    """The chosen setting's texts all, another's by chance, the poet's own beside each; a picture in few colours."""
    monkeypatch.chdir(tmp_path)
    folder, run = tmp_path / "small", tmp_path / "runs" / "mine"
    _, data = make_results(folder)
    api.summarize(folder)
    pictures = list((folder / "figures").iterdir())
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["checkpoints"] = [
        m | {"path": "runs/mine/checkpoint-10" if m["step"] else None} for m in manifest["checkpoints"]
    ]
    write_text(folder / "manifest.json", json.dumps(manifest))
    for log in ("training_log.csv", "timings.json", "run.json"):
        write_text(run / log, log)
    write_text(folder / "timings.jsonl", "")
    monkeypatch.setattr(reference, "SLICE", 3)
    for _ in range(2):
        reference.keep(folder, tmp_path / "kept" / "small")
    kept = tmp_path / "kept" / "small"
    selection = json.loads((kept / "best" / "selection.json").read_text())
    texts = pd.read_csv(kept / "texts.csv", keep_default_na=False)
    chosen = texts[texts["kept"] == "chosen"]
    examples = data.split("test")
    assert len(chosen) == len(examples) * 2  # the study's samples
    assert set(chosen["checkpoint"]) == {selection["checkpoint"]["checkpoint"]} <= {"base", NAME}
    assert set(chosen["temperature"]) == {selection["setting"]["temperature"]}
    assert (texts["kept"] == "random").sum() == 3
    assert (
        dict(zip(texts["example_id"], texts["reference"], strict=True)).items()
        <= {e.id: e.reference for e in examples}.items()
    )
    summary, whole = pd.read_csv(kept / "summary.csv.xz"), pd.read_csv(folder / "summary.csv")
    pd.testing.assert_frame_equal(summary, whole, rtol=1e-4)
    assert (tmp_path / "kept" / "training" / "mine" / "training_log.csv").read_text() == "training_log.csv"
    drawn = {picture.name for picture in pictures if picture.match("*_validation.png")}
    assert drawn == {picture.name for picture in (kept / "figures").iterdir()} != set()
    assert len(Image.open(kept / "figures" / min(drawn)).getcolors()) <= reference.COLOURS
