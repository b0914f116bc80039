import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

CONFIGS = sorted((ROOT / "deepspeed_configs").glob("*.json"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_stage_is_the_one_in_the_name(path):
    assert json.loads(path.read_text())["zero_optimization"]["stage"] == int(path.stem.removeprefix("zero")[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero1", "zero2", "zero3"])
def test_two_processes_give_the_losses_of_ddp(name, few, tmp_path):
    def losses(*launch):
        folder = tmp_path / launch[0].strip("-")
        command = [Path(sys.executable).with_name("accelerate"), "launch", *launch, "--num_processes", "2"]
        command += ["-m", "launchers.train", "algorithm=dpo", *few, f"output_root={folder}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
        (stage,) = folder.glob("stages/dpo-*")
        assert json.loads((stage / "stage.json").read_text())["world_size"] == 2
        return [row["loss"] for row in map(json.loads, (stage / "metrics.jsonl").open()) if "loss" in row]

    zero = losses("--use_deepspeed", "--deepspeed_config_file", str(ROOT / "deepspeed_configs" / f"{name}.json"))
    assert zero == pytest.approx(losses("--multi_gpu"), abs=1e-5)
