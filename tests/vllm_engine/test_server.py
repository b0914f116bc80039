"""The engine as a server: it judges, labels, rewards, and samples for a trainer, with log-probs."""

import json
import math
import urllib.request
from pathlib import Path

import pytest
import torch
import yaml

pytestmark = pytest.mark.vllm
PROMPT = {
    "kind": "pair",
    "instructions": "Which has a dog in it?",
    "show": "{prompt}\nA: {first}\nB: {second}",
    "answer": "A or B?",
    "verdicts": {"A": "first", "B": "second"},
    "max_tokens": 1,
}
PAIRS = [("dog", "red car"), ("a cat", "the dog ran"), ("sun", "snow and ice")]


def post(address, body):
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read() or "null")


@pytest.fixture
def judge(server, judge_model, tmp_path):
    from rlhf_trl_ext.judging.client import Client
    from rlhf_trl_ext.judging.endpoint import EndpointJudge

    path = tmp_path / "prompt.yaml"
    path.write_text(yaml.safe_dump(PROMPT))

    def client(model, base_url):
        return Client(model, str(tmp_path / "record.jsonl"), base_url, key_variable=None)

    return EndpointJudge(client=client, model=judge_model, base_url=f"{server}/v1", prompt=str(path))


def first_is_better(model, tokenizer, prompt, first, second):
    """`p(A) / (p(A) + p(B))` by transformers."""
    text = f"{PROMPT['instructions']}\n\n{prompt}\nA: {first}\nB: {second}\n\n{PROMPT['answer']}"
    asked = [{"role": "user", "content": text}]
    given = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    a, b = model(**given).logits[0, -1].log_softmax(-1)[tokenizer("AB", add_special_tokens=False)["input_ids"]].tolist()
    return math.exp(a) / (math.exp(a) + math.exp(b))


def test_labels_are_the_probabilities_of_the_model(judge, judge_model):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rlhf_trl_ext.judging.labelling import Labelling, Pair

    model, tokenizer = AutoModelForCausalLM.from_pretrained(judge_model), AutoTokenizer.from_pretrained(judge_model)
    pairs = [Pair("Tell.", *sorted(pair)) for pair in PAIRS]
    labels = list(Labelling().labels(lambda: pairs, judge, len(pairs)))
    assert not judge.notices and judge.cost["requests"] == 2 * len(pairs)
    for label in labels:
        orders = [(label.pair.first, label.pair.second), (label.pair.second, label.pair.first)]
        with torch.no_grad():
            one, other = (first_is_better(model, tokenizer, "Tell.", *order) for order in orders)
        assert (label.shown_first, label.shown_second) == pytest.approx((one, 1 - other), abs=1e-3)
        assert label.mass > 0.9
    assert len({round(label.preference, 4) for label in labels}) == len(pairs)


def test_the_launchers_label_and_evaluate(judge, server, judge_model, composed, tmp_path):
    from evaluation.verdicts.evaluate import Evaluation
    from rlhf_trl_ext.stages.label import label

    asked = ["judge=endpoint", f"judge.model={judge_model}", f"judge.base_url={server}/v1", f"output_root={tmp_path}"]
    asked += [f"judge.prompt={tmp_path}/prompt.yaml"]
    record = label(
        composed("label", "++dataset.preferences=12", "++dataset.evaluation=4", "labelling.ties=soft", *asked)
    )
    rows = [json.loads(line) for line in Path(record["file"]).read_text().splitlines()]
    assert len(rows) == record["rows"] == 12 and len({row["p_chosen"] for row in rows}) > 1
    for name, column in (("one", 0), ("other", 1)):
        texts = [{"prompt": "Tell.", "completion": pair[column]} for pair in PAIRS]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    compared = [f"baseline={tmp_path}/one.jsonl", f"policies={{other: {tmp_path}/other.jsonl}}"]
    row = Evaluation(composed("evaluate", *compared, *asked), None).run()["policies"]["other"]
    assert row["unparsable"] == 0 and row["wins"] + row["losses"] + row["ties"] == len(PAIRS)


def test_it_is_the_reward_of_a_trainer_with_an_engine_of_its_own(judge, make, ratios):
    from rlhf_trl_ext.rewards.ai import AIReward

    trainer = make(reward_funcs=AIReward(judge), max_steps=4)
    trainer.train()
    rows = [row for row in trainer.state.log_history if "reward" in row]
    # the rewards of 4 completions sum to 4 * 3 / 2, as one of every two that are compared wins
    assert [row["reward"] for row in rows] == pytest.approx([1.5 / 3] * 2, abs=1e-4)
    assert all(row["ai/failed"] == 0 and row["reward_std"] > 0 for row in rows) and len(ratios(trainer)) == 2


def test_what_a_served_policy_sampled_is_replayed_with_its_logprobs(server, judge_model, make, tmp_path):
    from rlhf_trl_ext.trainers.parts.past_completions import completion_logprobs

    prompt, rows = [{"role": "user", "content": "lamp"}], []
    asked = {"model": judge_model, "messages": prompt, "n": 4, "max_tokens": 8, "temperature": 1.0, "seed": 1}
    answer = post(f"{server}/v1/chat/completions", {**asked, "logprobs": True, "return_token_ids": True})
    for number, choice in enumerate(answer["choices"]):
        logprobs = [token["logprob"] for token in choice["logprobs"]["content"]]
        rows.append({"prompt": prompt, "reward": number, "completion_ids": choice["token_ids"], "logprobs": logprobs})
    (tmp_path / "past.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    trainer = make("grpo_offpolicy", replay_data=str(tmp_path / "past.jsonl"), max_steps=2, folder=tmp_path / "out")
    trainer.train()
    (group,) = [group for group in trainer.buffer.groups if group.key < 0]
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        own = completion_logprobs(AutoModelForCausalLM.from_pretrained(judge_model), group.rows, 1.0)
    mask = group.rows["completion_mask"].bool()
    torch.testing.assert_close(group.rows["sampling_per_token_logps"][mask], own[mask], atol=1e-3, rtol=0)


@pytest.fixture
def weights_by_file(server, judge_model, monkeypatch, tmp_path):
    """TRL sends weights through NCCL, which needs GPUs: here a folder takes them. All else of its client is real."""
    from safetensors.torch import save_file
    from trl.generation.vllm_client import VLLMClient

    config = Path(judge_model, "config.json").read_text()

    def reload(folder):
        post(f"{server}/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}})

    def send(self, metadata, named_params):
        folder = tmp_path / "weights"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(config)
        save_file({name: value.detach().clone() for name, value in named_params}, folder / "model.safetensors")
        reload(folder)

    monkeypatch.setattr(VLLMClient, "init_communicator", lambda self, device=0: None)
    monkeypatch.setattr(VLLMClient, "update_named_params", send)
    yield
    reload(judge_model)


@pytest.mark.parametrize(("name", "lora"), [("grpo", False), ("grpo_offpolicy", True)], ids=["grpo", "offpolicy-lora"])
def test_a_server_samples_from_the_policy_of_now_until_it_is_cut_off(name, lora, make, ratios, server, weights_by_file):
    trainer = make(name, lora, vllm_mode="server", vllm_server_base_url=server)
    send = trainer.vllm_generation.sync_weights
    trainer.vllm_generation.sync_weights = lambda: send() if trainer.state.global_step < 6 else None
    trainer.train()
    sent, cut = ratios(trainer)[:3], ratios(trainer)[3:]
    assert all(abs(ratio - 1) < 1e-3 for pair in sent for ratio in pair)
    assert len(cut) == 3 and all(any(abs(ratio - 1) > 0.1 for ratio in pair) for pair in cut)


def test_without_gpus_trl_says_that_weights_cannot_be_sent(make, server):
    with pytest.raises(NotImplementedError, match="needs a CUDA device"):
        make(vllm_mode="server", vllm_server_base_url=server)
