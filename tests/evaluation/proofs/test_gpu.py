import json
import subprocess
import sys

import pytest
from conftest import ROOT

from evaluation.proofs.gpu.planner import RUNS, on_device
from evaluation.proofs.memory.check import compose_run


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run[1]}-{len(run[5])}")
def test_on_a_gpu_the_planners_runs_are_in_bfloat16(run, tmp_path):
    config = compose_run(tmp_path, (*run[:5], (*run[5], *on_device(cuda=True))))
    assert config.args.bf16 and not config.args.use_cpu and config.model.dtype == "bfloat16"


@pytest.mark.slow
def test_the_same_code_runs_on_a_cpu(tmp_path):
    command = [sys.executable, "-m", "evaluation.proofs.gpu", "--cpu", "--tiny", "--output", str(tmp_path / "gpu.json")]
    command += ["--only", "grpo", "grpo_trl", "ppo", "ppo_trl112", "grpo_vi", "grpo_qlora", "planner"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "grpo / grpo_trl:" in done.stdout and "ppo_trl112  left out" in done.stdout, done.stdout
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert {"grpo", "grpo_trl", "ppo", "grpo_vi"} <= set(results)
    assert [row["predicted"] > 0 for row in results["planner"]] == [True]
