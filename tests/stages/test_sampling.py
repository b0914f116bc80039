import pytest
import torch
from torch._dynamo.utils import counters
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from rlhf_trl_ext.models import compiled_decoding
from rlhf_trl_ext.models.sampling import completion_mask, logprobs, sample
from rlhf_trl_ext.rewards.gold import GoldReward

PROMPT = "My name is Mina and I think my broken hammer is still in the garden. Could you check, please?"
PROMPTS = [[{"role": "user", "content": PROMPT}]] * 3


@pytest.fixture(scope="module")
def model(tiny):
    return AutoModelForCausalLM.from_pretrained(tiny).eval()


def samples(policy, reference, tiny, **changes):
    set_seed(0)
    options = dict(max_new_tokens=8, temperature=1.0, batch_size=2)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    return list(sample(policy, reference, tokenizer, PROMPTS, {"gold_reward": GoldReward()}, **{**options, **changes}))


def test_the_mask_ends_with_the_first_end_token():
    ids = torch.tensor([[5, 9, 5, 9], [9, 5, 5, 5], [5, 5, 5, 5]])
    assert completion_mask(ids, torch.tensor([9])).tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]


def test_a_policy_has_no_divergence_from_itself(model, tiny):
    rows = samples(model, model, tiny)
    assert [row["kl"] for row in rows] == [0.0] * 3
    assert all(0 < row["completion_tokens"] <= 8 for row in rows)
    assert all(0 < row["entropy"] < torch.log(torch.tensor(model.config.vocab_size)) for row in rows)
    assert all(row["truncated"] == (row["completion_tokens"] == 8) for row in rows)
    assert {row["prompt"][0]["content"] for row in rows} == {PROMPT}


def test_compiled_samples_are_the_same_and_the_last_batch_compiles_nothing_more(tiny, monkeypatch):
    policy = AutoModelForCausalLM.from_pretrained(tiny).eval()
    plain = samples(policy, policy, tiny)

    def traced(device):  # captured as one graph, but not translated to C++, which takes seconds
        settings = compiled_decoding.compile_settings(device)
        settings["compile_config"].backend, settings["compile_config"].mode = "eager", None
        return settings

    monkeypatch.setattr("rlhf_trl_ext.models.sampling.compile_settings", traced)
    torch._dynamo.reset()
    counters.clear()
    compiled = samples(policy, policy, tiny, compiled_generation="on")  # of two rows, then of one
    assert counters["stats"]["unique_graphs"] == 1
    assert [row["completion"] for row in compiled] == [row["completion"] for row in plain]


def test_divergence_is_the_expected_log_ratio(model, tiny):
    # One token, a reference whose logit of token 7 is higher by 1: KL(p || q) = log(1 + p_7 (e - 1)) - p_7.
    class Shifted(torch.nn.Module):
        def forward(self, ids, **kwargs):
            output = model(ids, **kwargs)
            output.logits[..., 7] += 1
            return output

    rows = samples(model, Shifted(), tiny, max_new_tokens=1, batch_size=3)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    ids = tokenizer.apply_chat_template(PROMPTS[0], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    p_7 = model(**ids).logits[0, -1].softmax(-1)[7].item()
    for row in rows:  # the sampled token decides: log(1 + p_7 (e - 1)), less 1 where token 7 was sampled
        normaliser = torch.log1p(torch.tensor(p_7 * (torch.e - 1))).item()
        assert min(abs(row["kl"] - normaliser), abs(row["kl"] - normaliser + 1)) < 1e-4


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_divergence_is_that_of_the_policy_that_sampled(model, tiny, temperature):
    # A reference with logits (1 + c) times the policy's: at temperature T both are divided by T.
    class Sharper(torch.nn.Module):
        def forward(self, ids, **kwargs):
            output = model(ids, **kwargs)
            output.logits = output.logits * 1.5
            return output

    rows = samples(model, Sharper(), tiny, max_new_tokens=1, batch_size=3, temperature=temperature)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    ids = tokenizer.apply_chat_template(PROMPTS[0], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    logits = model(**ids).logits[0, -1].detach()
    expected, wrong = ((logits / t).log_softmax(-1) - (1.5 * logits / t).log_softmax(-1) for t in (temperature, 1.0))
    for row in rows:  # the sampled token decides
        assert (expected - row["kl"]).abs().min() < 1e-5
    assert (expected - wrong).abs().min() > 1e-4


def test_greedy_completions_have_no_divergence(model, tiny, caplog):
    assert [row["kl"] for row in samples(model, model, tiny, temperature=0.0)] == [None] * 3
    assert "kl is left empty: at temperature=0" in caplog.text


def test_logprobs_do_not_depend_on_left_padding(model):
    ids = torch.tensor([[10, 11, 12, 13, 14]])
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), ids], dim=1)
    attention = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]])
    plain = logprobs(model, ids, torch.ones_like(ids), 2)
    assert plain.shape == (1, 3)
    torch.testing.assert_close(logprobs(model, padded, attention, 5), plain, atol=1e-5, rtol=1e-5)
    expected = model(ids).logits.log_softmax(-1)[0, 1:4].gather(-1, ids[0, 2:, None])[:, 0]
    torch.testing.assert_close(plain[0], expected, atol=1e-5, rtol=1e-5)
