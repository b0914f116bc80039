"""launchers.label, and pipelines that train on its labels."""

import json

import pytest
from command_lines import in_process, one_after_another

from rlhf_trl_ext.stages.label import label, preview


@pytest.fixture
def labelling(composed, tmp_path):
    """`labelling("judge=gold", ...)`: a configuration of a small labelling."""

    def make(*overrides):
        sizes = ["++dataset.preferences=60", "++dataset.evaluation=16", f"output_root={tmp_path}"]
        return composed("label", *sizes, *overrides)

    return make


def test_labels_are_written_reported_and_reused(labelling, tmp_path):
    record = label(labelling("judge=noisy_gold"))
    folder = tmp_path / "stages" / record["file"].split("/")[-2]
    rows = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    assert len(rows) == record["rows"] == 60 and {row["p_chosen"] for row in rows} == {0.78}
    report = json.loads((folder / "report.json").read_text())
    assert report["counts"]["pairs"] == 60 and report["position"]["position_bias"] == pytest.approx(0.3)
    assert 0.75 < report["agreement"]["share"] < 1 and "# Labels by gold" in (folder / "report.md").read_text()
    (folder / "pairs.jsonl").unlink()
    assert label(labelling("judge=noisy_gold")) == record  # finished: nothing is read again
    assert not (folder / "pairs.jsonl").exists()


def test_policies_write_the_replies_and_their_samples_are_kept(labelling, tiny, tmp_path):
    sampled = [
        f"pairs.policies=[{tiny},{tiny}]",
        "pairs.max_prompts=3",
        "pairs.max_new_tokens=4",
        "pairs.completions=2",
    ]
    told = preview(labelling("judge=gold", *sampled))
    assert told["pairs"] == 3 * 6 and told["requests"] == 0  # 4 replies a prompt make 6 pairs
    (kept,) = tmp_path.glob("completions/*.jsonl")  # the same policy twice is sampled once
    written = kept.stat().st_mtime_ns
    with pytest.raises(Exception, match="no pair got a label that can be trained on"):
        label(labelling("judge=gold", *sampled))  # an untrained model's replies are all worth 0
    assert kept.stat().st_mtime_ns == written


def test_how_fast_and_how_dear_does_not_make_another_run(labelling):
    from rlhf_trl_ext.stages.identity import fingerprint

    asked = ["judge=endpoint", "judge.model=m"]
    base = fingerprint(labelling(*asked))
    changed = ["++judge.client.concurrency=2", "++judge.client.budget_tokens=9"]
    assert fingerprint(labelling(*asked, *changed)) == base
    assert fingerprint(labelling(*asked, "++judge.both_orders=false")) != base
    assert fingerprint(labelling("judge=endpoint", "judge.model=n")) != base


MISTAKES = [
    (["judge=openia"], "judge=openia: no such choice; allowed are constitution, endpoint, gold, local"),
    (["judge=openai"], "key_variable=OPENAI_API_KEY: the environment has no such key"),
    (["judge=noisy_gold", "judge.noise=2"], "judge.noise=2, position_bias=0.3: noise is in [0, 0.5)"),
    (["labelling.average=mean"], "labelling.average=mean: allowed are arithmetic, logit."),
    (["labelling.tie_widht=0"], "labelling.tie_widht=0: Labelling has no such argument; did you mean"),
    (["pairs.files=[absent.jsonl]"], "pairs.files=absent.jsonl does not exist"),
    (["judge=constitution", "judge.constitution=x"], "constitution=x: no such file; allowed"),
]


@pytest.mark.slow
def test_mistakes_are_answered_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    commands = [["launchers.label", f"output_root={tmp_path}", *arguments] for arguments, _ in MISTAKES]
    printed = one_after_another(commands)
    lines = [line for line in printed.splitlines() if line.startswith("error:")]
    assert len(lines) == len(MISTAKES) and "Traceback" not in printed, printed[-3000:]
    for line, (arguments, told) in zip(lines, MISTAKES, strict=True):
        assert told in line, (arguments, line)


SMALL = ["++dataset.rest.demonstrations=400", "++dataset.rest.preferences=60", "++dataset.rest.evaluation=32"]
SMALL += ["++dataset.rest.prompts=60", "stages.sft.args.max_steps=40", "jobs=1"]


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_a_pipeline_goes_from_prompts_to_a_policy(tmp_path):
    arguments = ["experiment=rlaif", f"output_root={tmp_path}", *SMALL, "stages.rlaif.args.warmup_steps=0"]
    done = in_process("launchers.pipeline", *arguments, "stages.rlaif.args.max_steps=2")
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "rlaif" / "results.json").read_text())
    assert set(results["policies"]) == {"rlaif"} and results["stages"]["labels"]["rows"] > 10
    again = in_process("launchers.pipeline", *arguments, "stages.rlaif.args.max_steps=2")
    assert again.stdout.count("reused") == len(results["stages"]), again.stdout
