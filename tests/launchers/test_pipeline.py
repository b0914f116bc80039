import json

import pytest
from command_lines import in_process, one_after_another


def test_a_failing_stage_is_told_with_its_log(tmp_path):
    smoke = ["launchers.pipeline", "experiment=smoke", "policies=[dpo]", "dataset.demonstrations=4"]
    printed = one_after_another([[*smoke, f"output_root={tmp_path}"]])
    assert "stage sft failed" in printed and "log.txt" in printed


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_a_sweep_of_pipelines_runs_again_what_differs_and_is_ranked_by_its_policies(tmp_path):
    small = ["policies=[dpo]", "dataset.demonstrations=64", "dataset.preferences=64", "dataset.evaluation=16"]
    words = [*small, "stages.dpo.args.learning_rate=1e-4,1e-2", "sweep.metric=gold", f"output_root={tmp_path}"]
    swept = in_process("launchers.pipeline", "-m", "experiment=smoke", *words)
    assert swept.returncode == 0, swept.stderr
    stages = [line.split()[:2] for line in swept.stdout.splitlines() if "stages/" in line]
    reused = {name for name, how in stages if how == "reused"}
    first, second = ({name for name, _ in job} for job in (stages[:5], stages[5:]))
    assert first == second == {"sft", "reward", "dpo", "samples-sft", "samples-dpo"}
    assert reused == {"sft", "reward", "samples-sft"} and [how for _, how in stages].count("reused") == 3
    results = [json.loads(path.read_text()) for path in (tmp_path / "smoke").glob("*/results.json")]
    gold = sorted((each["policies"]["dpo"]["gold_reward_mean"] for each in results), reverse=True)
    table = swept.stdout[swept.stdout.rindex("┡") :].splitlines()
    shown = [line.split("│")[3].strip() for line in table if "learning_rate=" in line or " dpo " in line]
    assert len(results) == 2 and [value for value in shown if value] == [f"{value:.4g}" for value in gold]
