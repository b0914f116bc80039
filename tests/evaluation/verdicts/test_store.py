"""Verdicts are kept as they were given, and nothing that is kept is judged again."""

import json

import pytest
from runs_on_disk import DAMAGED

from evaluation.verdicts import store
from evaluation.verdicts.pairwise import judge_once, stored_entries, stored_evaluations
from evaluation.verdicts.results import read_results
from rlhf_trl_ext.judging.judge import ScoreJudge
from rlhf_trl_ext.judging.verdicts import Verdict, by_score


def rows(*scores):
    return [{"prompt": f"prompt {i}", "completion": "x", "reward": score} for i, score in enumerate(scores)]


class Counting(ScoreJudge):
    """A judge that counts the pairs that it is asked for."""

    def __init__(self, name="counting"):
        self.name, self.asked = name, 0

    def compare(self, first, second):
        self.asked += len(first)
        return by_score([row["reward"] for row in first], [row["reward"] for row in second])


def test_everything_a_judge_gave_comes_back(tmp_path):
    verdicts = [Verdict(1.0, 0.9, 1.0, 1.0), Verdict(None, None, 1.0, None), Verdict(0.0, 0.0, scores=(1.0, 2.0))]
    samples = {"dpo": rows(1, 2, 3), "sft": rows(0, 0, 0)}
    entry = store.save(tmp_path, "m:a/b", "identity", {("dpo", "sft"): verdicts}, samples)
    assert store.load(tmp_path, entry, samples) == {("dpo", "sft"): verdicts}
    lines = [json.loads(line) for line in (tmp_path / entry["file"]).read_text().splitlines()]
    assert lines[1] == {"policy": "dpo", "against": "sft", "pair": 1, "outcome": None, "shown_first": 1.0}
    # names that differ in what no file name has are different files
    assert len({store.file_name(name) for name in ("a:b", "a_b", "a/b")}) == 3


def test_samples_that_changed_are_judged_again_and_no_others(tmp_path):
    samples = {"sft": rows(0, 1), "dpo": rows(1, 1), "ppo": rows(2, 2)}
    pairs, judge, entries = [("dpo", "sft"), ("ppo", "sft")], Counting(), {}

    def judged(config):
        return judge_once(judge, config, samples, pairs, tmp_path, entries)

    first = judged({"a": 1})
    assert judge.asked == 4 and judged({"a": 1}) == first and judge.asked == 4
    samples["ppo"] = rows(2, 0)
    assert [verdict.outcome for verdict in judged({"a": 1})["ppo", "sft"]] == [1.0, 0.0]
    assert judge.asked == 6
    judged({"a": 2})  # another configuration of the judge is another judge
    assert judge.asked == 10


def test_a_damaged_file_is_told_to_readers_and_judged_again(tmp_path):
    samples, judge, entries = {"sft": rows(0, 1), "dpo": rows(1, 1)}, Counting(), {}
    pairs = [("dpo", "sft")]
    judge_once(judge, {}, samples, pairs, tmp_path, entries)
    path = tmp_path / entries["counting"]["file"]
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ValueError, match=r"counting\.jsonl.* judge again"):
        store.load(tmp_path, entries["counting"], samples)
    judge_once(judge, {}, samples, pairs, tmp_path, entries)
    assert judge.asked == 4 and len(store.load(tmp_path, entries["counting"], samples)["dpo", "sft"]) == 2


@pytest.mark.parametrize("wrong", [{"outcome": 7}, {"outcome": "x"}, {"outcome": 1.0, "preference": float("nan")}])
def test_a_stored_verdict_that_is_none_is_damage(wrong, tmp_path):
    samples = {"dpo": rows(1), "sft": rows(0)}
    entry = store.save(tmp_path, "m", "identity", {("dpo", "sft"): [Verdict(1.0)]}, samples)
    row = {"policy": "dpo", "against": "sft", "pair": 0, **wrong}
    (tmp_path / entry["file"]).write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match="is no verdict: the file is damaged"):
        store.load(tmp_path, entry, samples)


def test_an_entry_reads_nothing_outside_its_folder(tmp_path):
    (tmp_path / "secret.jsonl").write_text('{"policy": "dpo", "against": "sft", "outcome": 1.0}\n')
    folder = tmp_path / "run"
    (folder / "verdicts").mkdir(parents=True)
    entry = {"file": "../secret.jsonl", "identity": "", "samples": {}}
    with pytest.raises(ValueError, match="stored verdicts are missing"):
        store.load(folder, entry, {})
    (folder / "verdicts" / "secret.jsonl").symlink_to(tmp_path / "secret.jsonl")
    with pytest.raises(ValueError, match="stored verdicts are missing"):
        store.load(folder, entry, {})


WRONG = [{"verdicts": 1, "evaluations": [1]}, {"verdicts": {"a": 1}}, {"evaluations": {"a": float("nan")}}]
WRONG += [{"baseline": 1, "policies": {}, "stages": {}, "judge": "gold_reward"}]
WRONG += [{"baseline": "sft", "policies": {"dpo": {}}, "stages": {"sft": {}, "dpo": []}, "judge": "gold_reward"}]


@pytest.mark.parametrize("content", [*DAMAGED, *(json.dumps(results).encode() for results in WRONG)])
def test_damaged_results_are_told_to_readers_and_made_anew_by_their_writer(content, tmp_path):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    assert stored_entries(path) == {} == stored_evaluations(path, {}, {})
    with pytest.raises(ValueError, match=r"results=.*results.json is no results.json of a pipeline, or it is damaged"):
        read_results(path)
