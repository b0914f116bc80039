import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from command_lines import in_process
from conftest import ROOT
from judging.test_prompt import PAIR

from evaluation.verdicts.agreement import agreement
from evaluation.verdicts.evaluate import Evaluation
from evaluation.verdicts.pairwise import against_baseline, chosen_pairs, ranked
from evaluation.verdicts.results import judge_of
from rlhf_trl_ext.judging.verdicts import Verdict, combine


def rows(*scores):
    return [
        {
            "prompt": [{"role": "user", "content": f"prompt {i}"}],
            "completion": f"score={s} " + "x" * i,
            "reward": s,
            "gold_reward": s,
            "kl": 0.5,
        }
        for i, s in enumerate(scores)
    ]


def save(path, samples):
    path.write_text("".join(json.dumps(row) + "\n" for row in samples))
    return str(path)


@pytest.fixture
def files(tmp_path):
    baseline = save(tmp_path / "sft.jsonl", rows(*[1.0] * 12))
    better = save(tmp_path / "dpo.jsonl", rows(*[2.0] * 10, 1.0, 0.5))
    worse = save(tmp_path / "kto.jsonl", rows(*[0.5] * 11, 2.0))
    return baseline, better, worse


def run(composed, tmp_path, *overrides):
    config = composed("evaluate", f"output_root={tmp_path}", *overrides)
    evaluation = Evaluation(config, lambda name: composed("evaluate", f"judge={name}", f"output_root={tmp_path}").judge)
    return evaluation, evaluation.run()


def test_json_and_report_are_written(files, composed, tmp_path):
    baseline, better, worse = files
    more = ["pairs=all", "further_judges=[reward]", f"aa_control={baseline}"]
    evaluation, results = run(
        composed, tmp_path, f"baseline={baseline}", f"policies={{dpo: {better}, kto: {worse}}}", *more
    )
    assert results == json.loads((tmp_path / "evaluation.json").read_text())
    assert results["policies"]["dpo"]["win_rate"] == pytest.approx(10.5 / 12)
    assert results["policies"]["kto"]["wins"] == 1 and results["policies"]["kto"]["gold_reward_mean"] == 7.5 / 12
    assert [row["policy"] for row in results["ranking"]] == ["dpo", "baseline", "kto"]
    # gold and reward are the same numbers here: they agree on all 36 pairs
    (row,) = results["agreement"]
    assert row["pairs"] == 36 and row["kappa"] == 1.0
    assert results["aa_control"]["covers_half"] and results["aa_control"]["win_rate"] == 0.5
    assert results["false_positives"]["comparisons"] == 100 and set(results["failures"]) == {"dpo", "kto"}
    report = (tmp_path / "evaluation.md").read_text()
    for part in (
        "dpo is better than baseline",
        "## Ranking",
        "A/A",
        "False positives: of 100",
        "**Prompt**: prompt 11",
        "score=0.5",
    ):
        assert part in report
    assert evaluation.preview() == {name: {"requests": 0, "usd": 0.0} for name in ("gold_reward", "reward")}


def test_a_judge_over_http_is_appended_to_a_pipelines_results(files, endpoint, composed, tmp_path):
    baseline, better, _ = files
    stages = {"samples-sft": {"file": baseline}, "samples-dpo": {"file": better}}
    pipeline = {"baseline": "sft", "judge": "gold_reward", "policies": {"dpo": {"win_rate": 0.9}}, "stages": stages}
    path = tmp_path / "results.json"
    path.write_text(json.dumps(pipeline))
    url, seen = endpoint()
    overrides = ["judge=endpoint", "judge.model=m", f"judge.base_url={url}", f"results={path}"]
    _, results = run(composed, tmp_path, *overrides)
    row = results["policies"]["dpo"]
    assert (row["wins"], row["ties"], row["losses"]) == (10, 1, 1) and row["position"]["position_bias"] == 0
    assert len(seen()) == 22  # both orders of 11 pairs; one pair is identical
    kept = json.loads(path.read_text())
    assert kept["policies"] == pipeline["policies"] and kept["evaluations"]["m:helpfulness"] == results
    (told,) = results["agreement"]
    assert told["judges"] == ["m:helpfulness", "gold_reward"] and told["agreement"] == 1.0
    run(composed, tmp_path, *overrides)
    assert len(seen()) == 22  # all from the record


def test_a_hundred_thousand_judged_pairs_are_summarised_in_seconds():
    """Ten policies on 10,000 prompts: bootstrap, biases, length-controlled fit and ranking."""
    generator = np.random.default_rng(0)
    names = [f"policy {i}" for i in range(10)]
    lengths = generator.integers(50, 500, (11, 10_000))
    texts = ["x" * n for n in range(500)]
    samples = {
        name: [{"prompt": f"prompt {i}", "completion": texts[n]} for i, n in enumerate(row)]
        for name, row in zip([*names, "baseline"], lengths, strict=True)
    }
    verdicts = {(name, "baseline"): [combine(p, q, 2) for p, q in generator.random((10_000, 2))] for name in names}
    begin = time.process_time()
    rows = against_baseline(verdicts, samples, "baseline")
    ranked(verdicts, list(samples))
    seconds = time.process_time() - begin
    print(f"100,000 pairs in {seconds:.1f} processor seconds")
    assert seconds < 10
    assert all(abs(row["length_controlled_win_rate"] - 0.5) < 0.02 for row in rows.values())


def test_human_labels_are_agreed_with(files, composed, tmp_path):
    baseline, better, _ = files
    lines = [{"policy": "dpo", "pair": i, "outcome": float(i < 9)} for i in range(10)]
    labels = save(tmp_path / "labels.jsonl", lines)
    _, results = run(composed, tmp_path, f"baseline={baseline}", f"policies={{dpo: {better}}}", f"labels={labels}")
    (told,) = results["agreement"]
    assert told["judges"] == ["gold_reward", "labels"] and (told["pairs"], told["agreement"]) == (10, 0.9)


def test_an_anchor_gives_alpaca_evals_win_rate(files, composed, tmp_path):
    baseline, better, _ = files
    anchor = tmp_path / "anchor.csv"
    lines = [f"{i % 5 - 2},{0.5 - 0.1 * (i % 5 - 2)},{(i % 3 - 1) / 2}" for i in range(24)]
    anchor.write_text("\n".join(["std_delta_len,preference,instruction_difficulty", *lines]))
    usual = [f"baseline={baseline}", f"policies={{dpo: {better}}}"]
    _, results = run(composed, tmp_path, *usual, f"anchor={anchor}")
    assert 0.6 < results["policies"]["dpo"]["alpaca_eval"]["length_controlled_win_rate"] < 1
    assert "AlpacaEval-2's GLM" in (tmp_path / "evaluation.md").read_text()
    anchor.write_text("\n".join(["std_delta_len,preference,instruction_difficulty", *lines[:3]]))
    with pytest.raises(ValueError, match="3 rows for 12 prompts"):
        run(composed, tmp_path, *usual, f"anchor={anchor}")
    with pytest.raises(ValueError, match="is no CSV file with the columns"):
        run(composed, tmp_path, *usual, "anchor=absent.csv")


def test_agreement_leaves_out_what_was_not_read():
    pair = ("a", "b")
    first = {pair: [Verdict(1.0), Verdict(None), Verdict(0.0), Verdict(0.5)]}
    second = {pair: [Verdict(1.0), Verdict(1.0), Verdict(1.0), Verdict(None)]}
    (told,) = agreement({"x": first, "y": second})
    assert (told["pairs"], told["agreement"]) == (2, 0.5)
    assert chosen_pairs("all", "s", ["a", "b"]) == [("a", "s"), ("b", "s"), ("a", "b")]


def launch(*arguments, **environment):
    environment = {**os.environ, **environment}
    command = [sys.executable, "-m", "launchers.evaluate", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_mistakes_are_answered_in_one_sentence_before_any_request(files, endpoint, tmp_path, composed):
    baseline, better, _ = files
    url, seen = endpoint()
    other = save(tmp_path / "other.jsonl", rows(*[1.0] * 11))
    one = save(tmp_path / "one.jsonl", rows(1.0))
    prompt = tmp_path / "mine.yaml"
    prompt.write_text(yaml.safe_dump({**PAIR, "show": "{prompt} {first}"}))
    usual = [f"baseline={baseline}", f"policies={{dpo: {better}}}", "judge=endpoint", "judge.model=m"]
    usual += [f"judge.base_url={url}", f"output_root={tmp_path}"]
    mistakes = {
        "NO_SUCH_KEY: the environment has no such key": [*usual, "judge.client.key_variable=NO_SUCH_KEY"],
        "lacks the placeholder {second}": [*usual, f"judge.prompt={prompt}"],
        "samples of different prompts": [*usual, f"policies={{dpo: {other}}}"],
        "1 pair(s) to compare: at least 2": [*usual, f"policies={{dpo: {one}}}", f"baseline={one}"],
        "pairs=some: allowed are baseline, all": [*usual, "pairs=some"],
        "budget_usd=1.0 cannot be kept without prices": [*usual, "++judge.client.budget_usd=1.0"],
        "holds no samples": [*usual, f"baseline={prompt}"],
    }
    for told, overrides in mistakes.items():
        with pytest.raises(ValueError) as error:
            merged = {override.split("=")[0]: override for override in overrides}
            run(composed, tmp_path, *merged.values())
        assert told in str(error.value), error.value
    assert seen() == []


@pytest.mark.slow
def test_the_launcher_previews_and_answers_mistakes(files, endpoint, tmp_path, monkeypatch):
    baseline, better, _ = files
    url, seen = endpoint()
    usual = [f"baseline={baseline}", f"policies={{dpo: {better}}}", f"output_root={tmp_path}", f"judge.base_url={url}"]
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    done = in_process("launchers.evaluate", *usual, "judge=openai", "--dry-run")
    assert done.returncode == 0 and "'requests': 22" in done.stdout and "'usd':" in done.stdout, done.stderr
    monkeypatch.setenv("OPENAI_API_KEY", "")
    done = in_process("launchers.evaluate", *usual, "judge=openai")
    assert done.returncode == 1 and done.stderr.startswith("error: key_variable=OPENAI_API_KEY: the environment has no")
    assert len(done.stderr.splitlines()) == 1
    assert seen() == [] and not (tmp_path / "evaluation.json").exists()
    key = "sk-proj-Zq8sVh31xT0eLwMkY6uR"
    done = launch(*usual, "judge=openai", OPENAI_API_KEY=key)
    assert done.returncode == 0 and "dpo is better than baseline" in done.stdout, done.stderr
    written = done.stdout + done.stderr + "".join(p.read_text() for p in tmp_path.rglob("*") if p.is_file())
    assert key not in written and len(seen()) == 22


@pytest.mark.parametrize("field", ["nope", "held_out_reward"])
def test_a_pipeline_s_judge_reads_a_score_that_its_samples_will_have(field, composed):
    config = composed("pipeline", "experiment=smoke", "judge=score", f"judge.field={field}")
    with pytest.raises(ValueError, match=rf"judge.field={field}: samples of this pipeline have reward, gold_reward"):
        judge_of(config)
    config.judge.field = "gold_reward"
    assert judge_of(config).name == "gold_reward"


def test_a_score_that_is_no_number_is_unreadable_and_counted_apart(composed, tmp_path):
    """3 of 12 scores of the baseline are none: 9 pairs count, all won, and the three are told."""
    lines = [json.dumps(row) for row in rows(*[1.0] * 12)]
    lines[:3] = [line.replace('"gold_reward": 1.0', '"gold_reward": NaN') for line in lines[:3]]
    (tmp_path / "sft.jsonl").write_text("\n".join(lines))
    better = save(tmp_path / "dpo.jsonl", rows(*[2.0] * 12))
    _, results = run(composed, tmp_path, f"baseline={tmp_path / 'sft.jsonl'}", f"policies={{dpo: {better}}}")
    row = results["policies"]["dpo"]
    assert (row["wins"], row["pairs"], row["unparsable"]) == (9, 9, 3)
    assert results["baseline_result"]["gold_reward_missing"] == 3 and any("3 verdicts" in n for n in results["notices"])
