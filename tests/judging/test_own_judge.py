"""The recipe "Add a judge" of rlhf_trl_ext/judging/README.md, in all three uses."""

import asyncio
import json
from pathlib import Path

import pytest
from conftest import ROOT

from evaluation.verdicts.evaluate import Evaluation
from rlhf_trl_ext.configuration.checks import ConfigError, build
from rlhf_trl_ext.judging.verdicts import Reply
from rlhf_trl_ext.stages.label import label

ALONE = """
from rlhf_trl_ext.judging.judge import Judge, Score

class Brief(Judge):
    name = "brief"
    scores_alone = True

    def score(self, reply):
        return Score(-float(len(reply.text)))
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The README's class in a module, and one that scores alone."""
    text = (ROOT / "rlhf_trl_ext/judging/README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0].replace("\n   ", "\n").strip()
    (tmp_path / "my_own_judge.py").write_text(code + "\n" + ALONE)
    monkeypatch.syspath_prepend(tmp_path)


def samples(tmp_path, name, *texts):
    rows = [{"prompt": [{"role": "user", "content": str(i)}], "completion": text} for i, text in enumerate(texts)]
    (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / name


@pytest.mark.parametrize("name", ["Shorter", "Brief"])
def test_an_own_judge_is_a_class_and_a_yaml(name, own, composed, tmp_path):
    settings = {"_target_": f"my_own_judge.{name}"}
    long, short = samples(tmp_path, "a.jsonl", "a long one", "b"), samples(tmp_path, "b.jsonl", "short", "longer")
    config = composed("evaluate", f"baseline={long}", f"policies={{short: {short}}}", f"output_root={tmp_path}")
    config.judge = settings
    results = Evaluation(config, None).run()
    assert results["judge"] == name.lower() and results["policies"]["short"]["win_rate"] == 0.5
    config = composed("label", f"pairs.files=[{long},{short}]", f"output_root={tmp_path}", "trust=my_own_judge")
    config.judge = settings
    rows = Path(label(config)["file"]).read_text().splitlines()
    chosen = [json.loads(row)["chosen"][0]["content"] for row in rows]
    assert chosen == ["short", "b"]
    config = composed("train", "algorithm=grpo", "reward=ai", "trust=my_own_judge")
    config.reward.judge = settings
    reward = build(config.reward.functions[0], "reward.functions.0")
    rewards = asyncio.run(reward(["p", "p"], ["aa", "b"]))
    assert rewards == ([0.0, 1.0] if name == "Shorter" else [-2.0, -1.0])


@pytest.mark.parametrize(
    "judge", ["gold", "noisy_gold", "reward_model", "local", "endpoint", "served", "openai", "rubric"]
)
def test_every_kind_can_reward(judge, composed, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    overrides = [f"judge@reward.judge={judge}", f"output_root={tmp_path}"]
    overrides += ["reward.judge.model=m"] if judge in ("local", "endpoint", "served") else []
    config = composed("train", "algorithm=grpo", "reward=ai", *overrides)
    reward = build(config.reward.functions[0], "reward.functions.0")
    alone = judge in ("reward_model", "rubric")
    assert reward.__name__ == ("ai_score" if alone else "ai_win_rate")


def test_recorded_scores_judge_samples_only(composed, tmp_path):
    config = composed("train", "algorithm=grpo", "reward=ai", "judge@reward.judge=score")
    with pytest.raises(ConfigError, match="judge=score reads scores that samples carry, and completions in training"):
        build(config.reward.functions[0], "reward.functions.0")
    with pytest.raises(ConfigError, match="judge=score reads scores that samples carry, and pairs to label have none"):
        label(composed("label", "judge=score", f"output_root={tmp_path}"))


def test_scores_that_are_no_numbers_are_unreadable_everywhere(monkeypatch):
    from rlhf_trl_ext.judging import verdicts
    from rlhf_trl_ext.judging.gold import GoldJudge
    from rlhf_trl_ext.judging.judge import ScoreJudge
    from rlhf_trl_ext.judging.reward_model import RewardModelJudge
    from rlhf_trl_ext.rewards.ai import AIReward

    nan, inf = float("nan"), float("inf")
    first = [{"prompt": "p", "completion": f"a{i}", "gold_reward": s} for i, s in enumerate((1.0, nan, 1.0, inf))]
    second = [{"prompt": "p", "completion": f"b{i}", "gold_reward": s} for i, s in enumerate((nan, 1.0, 0.0, 0.0))]
    for judge in (ScoreJudge(), ScoreJudge("gold_reward"), GoldJudge()):
        assert [v.outcome for v in judge.compare(first, second)] == [None, None, 1, None]
    judge = RewardModelJudge("somewhere")
    judge.model = lambda prompts, replies: [{"a": 2.0, "b": nan, "c": inf}[r[0]["content"]] for r in replies]
    opinions = []
    for second in "abc":
        pair = verdicts.Display("p", "a", second)
        judge.prepare(lambda pair=pair: [pair])
        opinions.append(judge.opinion(pair).preference)
    assert opinions == [0.5, None, None]
    rewards = asyncio.run(AIReward(judge)(["p"] * 3, ["a", "b", "c"]))
    assert rewards == [2.0, None, None] and judge.score(Reply("p", "a")).value == 2.0
