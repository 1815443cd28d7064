"""``StudyCallback`` with what builds on transformers' Trainer, and in several processes."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from tangeval.core.errors import TangevalError
from tangeval.training import StudyCallback
from tangeval.training.axolotl import StudyPlugin
from tests.support.training import make_model, make_trainer, small_study

TWO = """
import sys
from pathlib import Path
from tangeval.analysis.stopping import Decision
from tangeval.training import Stopping, StudyCallback, callback
from tests.support.training import make_trainer, small_study

callback.decide = lambda history, **_: Decision(0, len(history) == 3, "")  # asked by the first process alone
trainer = make_trainer(Path(sys.argv[1]), Path(sys.argv[2]), ddp_find_unused_parameters=False, max_steps=6, save_steps=1)
trainer.add_callback(StudyCallback(small_study(), stop=Stopping("form"), trainer=trainer))
trainer.train()
sums = [float(p.detach().sum()) for p in trainer.model.parameters() if p.requires_grad]
Path(sys.argv[2], f"ended-{trainer.args.process_index}").write_text(f"at {trainer.state.global_step}: {sums}")
"""


def test_two_processes_agree_and_the_first_evaluates(tiny_model, tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    here = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(Path.cwd())}
    out = tmp_path / "out"
    command = [*launch, str(tmp_path / "two.py"), str(tiny_model), str(out)]
    done = subprocess.run(command, env=os.environ | here, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    first, second = ((out / f"ended-{process}").read_text() for process in range(2))
    assert first == second
    assert first.startswith("at 2: ")
    assert pd.read_csv(out / "study" / "training_log.csv")["step"].tolist() == [0, 1, 2]


def test_trls_trainer_keeps_what_it_gathers_for_its_own_lines(tiny_model, tmp_path):
    trl = pytest.importorskip("trl", minversion="1.16")
    from datasets import Dataset

    rows = Dataset.from_list([{"prompt": "春風", "completion": f"不度玉門關{n}"} for n in range(16)])
    histories = []
    for study in (False, True):
        out = tmp_path / str(study)
        args = trl.SFTConfig(
            str(out), max_steps=4, save_steps=2, logging_steps=4, per_device_train_batch_size=2, use_cpu=True, bf16=False,
            report_to="none", disable_tqdm=True,
        )  # fmt: skip
        tokenizer = make_trainer(tiny_model, out).processing_class
        trainer = trl.SFTTrainer(
            model=make_model(tiny_model), args=args, train_dataset=rows, processing_class=tokenizer
        )
        if study:
            trainer.add_callback(StudyCallback(small_study(), trainer=trainer))
        trainer.train()
        histories.append([line for line in trainer.state.log_history if "loss" in line])
        found = [line["step"] for line in trainer.state.log_history if "eval_form" in line]
        assert found == ([0, 2, 4] if study else [])
    assert histories[0] == histories[1]  # TRL's means of all four steps among them
    assert "mean_token_accuracy" in histories[0][0]


@pytest.mark.parametrize(
    ("asked", "said"),
    [({"step": 5}, "tangeval: step: unknown key"), ({"stop": {"metrics": "form"}}, "stop.metrics: unknown key"), ({"stop": True}, "stop")],
)  # fmt: skip
def test_what_axolotls_plugin_does_not_take_is_named(asked, said):
    with pytest.raises(TangevalError, match=said):
        StudyPlugin().add_callbacks_post_trainer({"tangeval": asked}, None)


def test_axolotls_plugin_gives_the_callback(tmp_path):
    base = pytest.importorskip("axolotl.integrations.base")
    study = tmp_path / "study.yaml"
    study.write_text(small_study(data={"path": "sample", "validation": 6}).to_yaml(), "utf-8")
    plugin = base.load_plugin("tangeval.training.axolotl.StudyPlugin")
    asked = {"tangeval": {"study": str(study), "steps": 5, "stop": {"metric": "form", "patience": 2}}}
    trainer = SimpleNamespace()
    (callback,) = plugin.add_callbacks_post_trainer(asked, trainer)
    assert (callback.steps, callback.stop.metric, callback.trainer) == (5, "form", trainer)
    module, _, name = plugin.get_input_args().rpartition(".")
    assert getattr(sys.modules[module], name)(**asked).tangeval == asked["tangeval"]
