"""The demo's parts are found however tangeval is installed."""

import subprocess
from pathlib import Path

from tangeval.core.study import load_study
from tangeval.doors.demo import STUDY, finetuning


def test_the_fine_tuning_is_a_command_whose_checkpoints_the_study_takes(tmp_path):
    command = finetuning()
    done = subprocess.run([*command[:3], "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    config = Path(command[3]).read_text("utf-8")
    assert f"output_dir: {load_study(STUDY).checkpoints[0]}\n" in config
