"""The Python road: the same numbers as the launchers, from files, tables, data sets and lists alike."""

import json
import re
import subprocess
import sys

import datasets
import pandas as pd
import pytest
from conftest import ROOT

from evaluation import Pipeline, evaluate, judge, metrics
from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.stages import execution

BASELINE = [{"prompt": f"prompt {i}", "completion": "a b c d", "gold_reward": 0.5} for i in range(12)]
POLICY = [{**row, "completion": "a b", "gold_reward": i / 10} for i, row in enumerate(BASELINE)]
# gold 0 to 1.1 in steps of .1 against .5: six wins, a tie, five losses
WIN_RATE = 6.5 / 12


def sources(tmp_path):
    path = tmp_path / "policy.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in POLICY))
    return {"file": path, "list": POLICY, "table": pd.DataFrame(POLICY), "data set": datasets.Dataset.from_list(POLICY)}


def test_samples_of_any_source_are_judged_alike(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    policies = sources(tmp_path)
    before = set(tmp_path.rglob("*"))
    table = evaluate(baseline=pd.DataFrame(BASELINE), policies=policies)
    assert list(table.index) == ["baseline", *policies]
    assert table.loc[list(policies), "win_rate"].tolist() == pytest.approx([WIN_RATE] * 4)
    assert table.attrs["evaluation"]["policies"]["table"]["wins"] == 6
    assert set(tmp_path.rglob("*")) == before  # nothing is written unless it is asked for
    for source in policies.values():
        verdicts = judge(source, BASELINE)
        assert verdicts["outcome"].mean() == pytest.approx(WIN_RATE) and verdicts["second"][0] == "a b c d"
    own = metrics(policies)
    assert own["gold_reward_mean"].tolist() == pytest.approx([0.55] * 4) and set(own["characters_mean"]) == {3.0}


def test_output_is_written_where_it_is_asked_for(tmp_path):
    evaluate(baseline=BASELINE, policies={"dpo": POLICY}, output=tmp_path / "mine.json")
    assert json.loads((tmp_path / "mine.json").read_text())["policies"]["dpo"]["win_rate"] == pytest.approx(WIN_RATE)
    assert (tmp_path / "mine.md").exists() and (tmp_path / "verdicts" / "gold_reward.jsonl").exists()


def test_mistakes_are_told_as_on_the_command_line():
    both = {"baseline": BASELINE, "policies": {"dpo": POLICY}}
    with pytest.raises(ConfigError, match=r"floor=x: no such key; allowed are .*aa_control"):
        evaluate(**both, floor="x")
    with pytest.raises(ValueError, match="pairs=some: allowed are baseline, all"):
        evaluate(**both, pairs="some")
    with pytest.raises(ValueError, match="different prompts"):
        judge(POLICY, BASELINE[:-1])
    with pytest.raises(ValueError, match="first, row 0 holds no samples"):
        judge([{"text": "a"}], BASELINE)
    with pytest.raises(ConfigError, match=r"args\.learning_rate"):
        Pipeline("experiment=smoke", "policies=[dpo]", "stages.sft.args.learning_rate=[1]")


def test_a_stage_runs_after_those_that_it_needs_and_once(tmp_path, monkeypatch):
    begun = []

    class Fake:
        """Records every stage as finished, in an order that its needs allow."""

        def __init__(self, pipelines, places):
            self.pipeline = pipelines[""]

        def run(self):
            waiting = dict(self.pipeline.configs)
            while waiting:
                name = next(
                    n for n, config in waiting.items() if all(x in self.pipeline.records for x in config.needs if x)
                )
                begun.append(name)
                self.pipeline.records[name], self.pipeline.folders[name] = {"name": name}, tmp_path / name
                del waiting[name]
            return {}

    monkeypatch.setattr(execution, "Execution", Fake)
    run = Pipeline("experiment=smoke", "policies=[dpo,grpo]", f"output_root={tmp_path}")
    assert run.folder == tmp_path / "smoke"
    assert set(run.stages) == {"sft", "reward", "dpo", "grpo", "samples-sft", "samples-dpo", "samples-grpo"}
    assert run.train("dpo")["folder"] == tmp_path / "dpo" and begun == ["sft", "dpo"]
    run.train("sft"), run.train("samples-grpo")
    assert begun[:2] == ["sft", "dpo"] and set(begun[2:]) == {"reward", "grpo", "samples-grpo"}
    with pytest.raises(ConfigError, match=r"stage=ppo: no such stage; allowed are sft, .*samples-grpo"):
        run.train("ppo")


def test_importing_it_is_cheap():
    code = "import sys; from evaluation import Pipeline, evaluate; print({'torch', 'pandas'} & {*sys.modules})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
def test_the_snippet_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    snippet = re.search(r"```python\n(.*?)```", (ROOT / "evaluation" / "README.md").read_text(), re.DOTALL)[1]
    assert snippet.count("\n") <= 12
    names: dict = {}
    exec(snippet.replace("experiment=demo", "experiment=smoke"), names)
    assert len(names["samples"]) == 64 and list(names["table"].index) == ["sft", "grpo"]
    assert names["table"].loc["grpo", "win_rate"] == pytest.approx(names["again"].loc["mine", "win_rate"])
    assert (tmp_path / "outputs" / "smoke" / "verdicts").is_dir() and "loss" in names["log"]
