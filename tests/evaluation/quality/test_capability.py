import csv
import json

import numpy as np
import pytest
import yaml

from evaluation.quality.benchmarks.capability import against, capability, write_capability


def test_a_loss_is_flagged_and_noise_is_not():
    before = np.tile([1.0, 1.0, 1.0, 0.0], 100)
    forgot = before.copy()
    forgot[:40] = 0.0  # 30 of 400 items lost
    told = against({"sft": before, "dpo": forgot, "kto": before[::-1].copy()}, "sft")
    assert told["sft"]["value"] == 0.75 and "flagged" not in told["sft"]
    assert told["dpo"]["difference"] == pytest.approx(-30 / 400) and told["dpo"]["flagged"]
    # other items, as many right: no difference; 400 unpaired items would have an interval of +-0.06
    assert told["kto"]["difference"] == 0 and not told["kto"]["flagged"]
    assert told["dpo"]["difference_ci"][1] < -0.04


def test_an_unknown_baseline_is_told():
    with pytest.raises(ValueError, match="baseline=x: no such model"):
        capability({"sft": "folder"}, "x", ["task"])


@pytest.mark.slow
def test_truthfulqa_runs_offline_on_local_data(shared, composed, tmp_path):
    pytest.importorskip("lm_eval", reason="pip install 'rlhf-trl-ext[benchmarks]'")
    with (shared / "data/truthfulqa/TruthfulQA.csv").open() as file:
        rows = [row for row, _ in zip(csv.DictReader(file), range(24), strict=False)]
    lines = []
    for i, row in enumerate(rows):
        choices = [row["Best Answer"], row["Best Incorrect Answer"]]
        lines.append({"question": row["Question"], "choices": choices[:: 1 - 2 * (i % 2)], "gold": i % 2})
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = {
        "task": "truthfulqa_two_choices",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": str(tmp_path / "questions.jsonl")},
        "test_split": "train",
        "output_type": "multiple_choice",
        "doc_to_text": "Q: {{question}}\nA:",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}],
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task))
    model = str(shared / "models/stories260K")
    more = [f"baseline={model}", f"policies={{same: {model}}}", "tasks=[truthfulqa_two_choices]"]
    config = composed("capability", *more, f"include_path={tmp_path}", f"output={tmp_path}/capability.json")
    told = write_capability(config)["truthfulqa_two_choices"]
    assert told["baseline"]["items"] == 24 and 0 < told["baseline"]["value"] < 1
    assert told["same"]["difference"] == 0 and not told["same"]["flagged"]
    assert json.loads((tmp_path / "capability.json").read_text())["truthfulqa_two_choices"] == told
    with pytest.raises(ValueError, match="tasks=nonsense: lm-eval knows no such task"):
        capability({"sft": model}, "sft", ["nonsense"])
