import json
import subprocess
import sys

import pytest
from command_lines import one_after_another
from conftest import ROOT


def pipeline(*arguments):
    command = [sys.executable, "-m", "launchers.pipeline", "experiment=smoke", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_only_what_a_change_reaches_runs_again(tmp_path):
    here = [f"output_root={tmp_path}", "policies=[grpo]"]
    assert pipeline(*here).returncode == 0
    changed = pipeline(*here, "stages.grpo.args.beta=0.1")
    stages = {line.split()[0]: line.split()[1] for line in changed.stdout.splitlines() if "stages/" in line}
    assert stages.pop("grpo") != "reused" and stages.pop("samples-grpo") != "reused"
    assert set(stages.values()) == {"reused"}, changed.stdout


def test_a_failing_stage_is_told_with_its_log(tmp_path):
    smoke = ["launchers.pipeline", "experiment=smoke", "policies=[dpo]", "dataset.demonstrations=4"]
    printed = one_after_another([[*smoke, f"output_root={tmp_path}"]])
    assert "stage sft failed" in printed and "log.txt" in printed


@pytest.mark.slow
def test_a_sweep_of_pipelines_is_ranked_by_what_comes_of_their_policies(tmp_path):
    small = ["policies=[dpo]", "dataset.demonstrations=64", "dataset.preferences=64", "dataset.evaluation=16"]
    rates = "stages.dpo.args.learning_rate=1e-4,1e-2"
    swept = pipeline("-m", *small, rates, "sweep.metric=gold", f"output_root={tmp_path}")
    assert swept.returncode == 0, swept.stderr
    assert swept.stdout.count("sft          reused") == 1 and swept.stdout.count("dpo          reused") == 0
    results = [json.loads(path.read_text()) for path in (tmp_path / "smoke").glob("*/results.json")]
    gold = sorted((each["policies"]["dpo"]["gold_reward_mean"] for each in results), reverse=True)
    table = swept.stdout[swept.stdout.rindex("┡") :].splitlines()
    shown = [line.split("│")[3].strip() for line in table if "learning_rate=" in line or " dpo " in line]
    assert len(results) == 2 and [value for value in shown if value] == [f"{value:.4g}" for value in gold]
