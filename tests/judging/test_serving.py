"""Real language models as judges: in this process, and over HTTP from `transformers serve`."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from command_lines import in_process

from rlhf_trl_ext.judging.local import LocalJudge
from rlhf_trl_ext.models.loading import template

SHORT = {
    "kind": "pair",
    "instructions": "Which story has a dog in it?",
    "show": "{prompt}\nA: {first}\nB: {second}",
    "answer": "A or B?",
    "verdicts": {"A": "first", "B": "second"},
    "max_tokens": 3,
}
STORIES = ["Tom had a big dog.", "The dog ran to Lily.", "Ben saw a dog."]
OTHERS = ["Tom had a red car.", "The sun was hot.", "Lily ate a cake."]


def rows(texts):
    return [{"prompt": [{"role": "user", "content": "Tell a story."}], "completion": text} for text in texts]


def local(model, folder, **settings):
    return LocalJudge(model=str(model), record=str(folder / "answers.jsonl"), least_mass=0.0, **settings)


@pytest.fixture(scope="module")
def prompt_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompt") / "dog.yaml"
    path.write_text(yaml.safe_dump(SHORT))
    return str(path)


@pytest.fixture(scope="module")
def judge_folder(tmp_path_factory, prompt_file):
    """stories260K after a minute at school: it tells which of two sentences has a dog in it."""
    from conftest import SHARED

    if not (SHARED / "models").is_dir():
        pytest.skip("real model absent: set RLHF_SHARED to the folder that holds data/ and models/")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

    from rlhf_trl_ext.judging.prompt import load

    set_seed(0)
    source = SHARED / "models/stories260K"
    tokenizer, model = AutoTokenizer.from_pretrained(source), AutoModelForCausalLM.from_pretrained(source)
    tokenizer.chat_template = template("plain")
    prompt = load(prompt_file)
    examples = []
    for with_dog in STORIES:
        for without in OTHERS:
            for verdict, pair in (("A", (with_dog, without)), ("B", (without, with_dog))):
                text = prompt.text(prompt="Tell a story.", first=pair[0], second=pair[1])
                asked = [{"role": "user", "content": text}]
                start = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
                told = [*asked, {"role": "assistant", "content": verdict}]
                whole = tokenizer.apply_chat_template(told, return_dict=True)["input_ids"]
                examples.append((whole, [-100] * len(start) + whole[len(start) :]))
    width = max(len(ids) for ids, _ in examples)
    ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in examples])
    labels = torch.tensor([row + [-100] * (width - len(row)) for _, row in examples])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(60):
        loss = model(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("judge")
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # its tokenizer has no token for a bare "A": the letters that it has are its labels, in this process and served
    from transformers.decision import DecisionConfig

    from rlhf_trl_ext.judging.decision import LocalDecisions

    DecisionConfig(labels={"choice": LocalDecisions(str(folder), prompt)._labels(tokenizer)}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def served(judge_folder):
    """Address of `transformers serve` with that model."""
    pytest.importorskip("fastapi", reason="pip install transformers[serving]")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(judge_folder), "--port", str(port)]
    log = open(judge_folder / "serve.log", "w")  # noqa: SIM115
    server = subprocess.Popen(
        [*command, "--device", "cpu"], stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    for _ in range(180):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
            break
        except OSError:
            assert server.poll() is None, (judge_folder / "serve.log").read_text()[-2000:]
            time.sleep(0.5)
    yield f"http://127.0.0.1:{port}/v1"
    server.kill()
    server.wait()
    log.close()


@pytest.mark.slow
def test_a_served_model_judges_both_orders_from_the_launcher(served, judge_folder, prompt_file, tmp_path):
    paths = {}
    for name, texts in {"with_dog": STORIES, "without": OTHERS}.items():
        paths[name] = tmp_path / f"{name}.jsonl"
        paths[name].write_text("".join(json.dumps(row) + "\n" for row in rows(texts)))
    words = [f"baseline={paths['without']}", f"policies={{with_dog: {paths['with_dog']}}}", f"output_root={tmp_path}"]
    words += ["judge=endpoint", f"judge.base_url={served}", f"judge.model={judge_folder}"]
    words += [f"judge.prompt={prompt_file}", f"judge.client.record={tmp_path}/record.jsonl"]
    done = in_process("launchers.evaluate", *words)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "evaluation.json").read_text())
    row = results["policies"]["with_dog"]
    assert (row["wins"], row["unparsable"], row["order_flip_rate"]) == (3, 0, 0.0)
    record = [json.loads(line) for line in (tmp_path / "record.jsonl").read_text().splitlines()]
    assert len(record) == 6 and {line["answer"]["text"].strip()[0] for line in record} == {"A", "B"}
    assert "ignores logprobs: verdicts are read from the text" in results["notices"][0]


@pytest.mark.slow
def test_a_server_that_ignores_logprobs_is_found_out(served, judge_folder, tmp_path):
    from rlhf_trl_ext.judging.client import Client
    from rlhf_trl_ext.judging.question import Question

    client = Client(str(judge_folder), str(tmp_path / "record.jsonl"), served, key_variable=None)
    (answer,) = client.ask([Question(({"role": "user", "content": "A or B?"},), 3, top_logprobs=5)])
    assert answer.text and answer.logprobs is None
    assert "ignores logprobs" in next(iter(client.notices))


@pytest.mark.slow
def test_a_model_in_this_process_gives_probabilities(judge_folder, tmp_path):
    judge = local(judge_folder, tmp_path)
    there, back = judge.compare(rows(STORIES), rows(OTHERS)), judge.compare(rows(OTHERS), rows(STORIES))
    for a, b in zip(there, back, strict=True):
        assert 0 < a.preference < 1 and a.preference == pytest.approx(1 - b.preference)
        assert a.outcome == 1 - b.outcome
    (score, _) = local(judge_folder, tmp_path, prompt="quality").compare(rows(STORIES[:1]), rows(OTHERS[:1]))[0].scores
    assert 1 < score < 5


def test_prompts_with_reasons_and_models_without_a_template_are_refused(shared, tmp_path):
    with pytest.raises(ValueError, match=r"prompt=mt_bench_pair asks for reasons"):
        local("any", tmp_path, prompt="mt_bench_pair")
    with pytest.raises(ValueError, match=r"has no chat template; give judge\.chat_template=plain"):
        local(shared / "models/stories260K", tmp_path, prompt="tldr").compare(rows(STORIES), rows(OTHERS))


def label(tmp_path, *arguments):
    """Rows and report of a labelling run by the launcher."""
    done = in_process("launchers.label", f"output_dir={tmp_path}", f"output_root={tmp_path}", *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    return rows, json.loads((tmp_path / "report.json").read_text())


@pytest.mark.slow
def test_hh_labels_are_the_same_in_process_and_over_http(served, judge_folder, shared, tmp_path):
    hh = ["dataset=hh", f"dataset.path={shared}/data/hh_rlhf", "pairs.max_pairs=12", "labelling.tie_width=0"]
    hh += ["dataset.max_tokens=null", "dataset.max_prompt_tokens=null"]
    asked = [f"judge.model={judge_folder}"]
    local, report = label(tmp_path / "local", *hh, *asked, "judge=local", "judge.least_mass=0")
    http, told = label(tmp_path / "http", *hh, *asked, "judge=served", f"judge.base_url={served}")
    assert len(local) == len(http) == 12 and report["counts"]["unparsable"] == 0
    for a, b in zip(local, http, strict=True):
        assert a["chosen"] == b["chosen"] and a["p_chosen"] == pytest.approx(b["p_chosen"], abs=1e-6)
        for order in ("shown_first", "shown_second"):
            assert a["evidence"][order] == pytest.approx(b["evidence"][order], abs=1e-6)
    seen = [row["evidence"]["shown_first"] for row in local]
    assert max(seen) - min(seen) > 1e-4  # not one number for all
    assert report["agreement"]["pairs"] == 12 and report["mass"]["mean"] > 0 and told["mass"] is None
    assert any("tells no label mass" in notice for notice in told["notices"])


@pytest.mark.slow
def test_an_endpoint_without_logprobs_labels_by_drawn_verdicts_and_says_so(served, judge_folder, prompt_file, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    texts = zip(STORIES, OTHERS, strict=True)
    pairs.write_text("".join(json.dumps({"prompt": "Tell a story.", "first": a, "second": b}) + "\n" for a, b in texts))
    arguments = ["judge=endpoint", f"judge.model={judge_folder}", f"pairs.files=[{pairs}]"]
    arguments += [f"judge.base_url={served}", f"judge.prompt={prompt_file}"]
    rows, report = label(tmp_path / "out", *arguments, "judge.samples=4", "judge.max_unreadable=1")
    assert all(row["chosen"][0]["content"] in STORIES for row in rows) and rows
    assert all((row["p_chosen"] * 10) == pytest.approx(round(row["p_chosen"] * 10)) for row in rows)  # (k + .5) / 5
    assert any("4 drawn verdicts each, not from log-probabilities" in notice for notice in report["notices"])
    assert any("ignores logprobs" in notice for notice in report["notices"])


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_hh_goes_from_prompts_by_a_local_models_labels_to_two_policies(judge_folder, shared, tmp_path):
    model = ["model=stories260k", f"model.model_name_or_path={shared}/models/stories260K", "jobs=1"]
    hh = [f"dataset.rest.path={shared}/data/hh_rlhf", "dataset.rest.max_samples=48", "samples.max_prompts=8"]
    hh += ["dataset.rest.max_tokens=480", "dataset.rest.max_prompt_tokens=300", "samples.max_new_tokens=16"]
    labels = [f"labeller.model={judge_folder}", "labeller.least_mass=0", "labelling.tie_width=0"]
    labels += ["pairs.max_new_tokens=16", "pairs.max_pairs=24"]
    steps = [f"stages.{stage}.args.max_steps=3" for stage in ("sft", "soft_reward", "rlaif", "soft_dpo")]
    steps += ["stages.rlaif.args.max_completion_length=16"]
    arguments = [
        "experiment=rlaif_hh",
        "policies=[rlaif,soft_dpo]",
        f"output_root={tmp_path}",
        *model,
        *hh,
        *labels,
        *steps,
    ]
    done = in_process("launchers.pipeline", *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "rlaif_hh" / "results.json").read_text())
    assert set(results["policies"]) == {"rlaif", "soft_dpo"} and results["stages"]["labels"]["rows"] > 10
