"""The split of a prompt: stable, disjoint, independent of order."""

import random
import subprocess
import sys

import pytest

from rlhf_trl_ext.data.splits import BUCKETS, bucket_of, check_shares

SHARES = {"sft": 0.3, "reward": 0.3, "rl": 0.3, "evaluation": 0.1}


def asked(text, *more):
    roles = ("assistant", "user")
    later = [{"role": roles[i % 2], "content": content} for i, content in enumerate(more)]
    return [{"role": "user", "content": text}, *later]


def test_the_buckets_of_these_prompts_never_change():
    # First bytes of `printf '<seed>\\n<prompt>' | sha256sum`, as a part of 256: f6 = 0.96, fe = 0.99, 2a = 0.17,
    # 91 = 0.57, d8 = 0.85, in the order below. The edges are 0.3, 0.6 and 0.9.
    expected = {
        ("hello", 0): "evaluation",
        ("hello", 1): "evaluation",
        ("prompt 1", 0): "sft",
        ("prompt 3", 0): "reward",
        ("prompt 2", 0): "rl",
    }
    assert {case: bucket_of(asked(case[0]), SHARES, case[1]) for case in expected} == expected


def test_buckets_have_their_shares():
    # 10,000 prompts: the standard error of a share of 0.3 is 0.0046, four of it are 0.019.
    found = [bucket_of(asked(f"prompt {i}"), SHARES, seed=0) for i in range(10_000)]
    assert {bucket: round(found.count(bucket) / 10_000, 3) for bucket in BUCKETS} == pytest.approx(SHARES, abs=0.019)


def test_case_white_space_and_unicode_form_do_not_matter():
    assert len({bucket_of(asked(t), SHARES, s) for s in (3,) for t in ("Café  au\nlait?", " CAFE\u0301 au lait?")}) == 1
    for number in range(50):
        one, other = f"Is  it\n\nÉ{number}?", f" is it e\u0301{number}? "
        assert bucket_of(asked(one), SHARES, 0) == bucket_of(asked(other), SHARES, 0)


def test_a_conversation_and_its_continuations_stay_together():
    for number in range(50):
        first = f"prompt {number}"
        system = [{"role": "system", "content": "Be brief."}, *asked(first)]
        several = [asked(first), asked(first, "Yes?", "Go on."), asked(first, "No.", "Why?"), system]
        assert len({bucket_of(prompt, SHARES, 0) for prompt in several}) == 1


def test_the_seed_and_nothing_of_the_process_moves_prompts():
    prompts = [asked(f"prompt {i}") for i in range(200)]
    first = [bucket_of(p, SHARES, 0) for p in prompts]
    assert [bucket_of(p, SHARES, 1) for p in prompts] != first
    turned = dict(reversed(SHARES.items()))
    assert [bucket_of(p, turned, 0) for p in prompts] == first
    code = (
        "from rlhf_trl_ext.data.splits import bucket_of\n"
        f"print([bucket_of([dict(role='user', content=f'prompt {{i}}')], {SHARES}, 0) for i in range(200)] == {first})"
    )
    # Python's own hash() differs from process to process; a split that used it would differ here.
    for hash_seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)}
        ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert ran.stdout == "True\n"


def test_a_share_of_zero_gets_nothing():
    shares = {"sft": 0, "reward": 0.5, "rl": 0, "evaluation": 0.5}
    order = random.Random(0).sample(range(1000), 300)
    assert {bucket_of(asked(f"prompt {i}"), shares, 0) for i in order} == {"reward", "evaluation"}


@pytest.mark.parametrize(
    "shares", [{}, {"sft": 0.5}, {"sft": 0.6, "rl": 0.6}, {"sft": 1.5, "rl": -0.5}, {"sft": 0.9, "test": 0.1}]
)
def test_shares_that_are_not_allowed(shares):
    with pytest.raises(ValueError, match=r"shares=\{.*\} sum to .*: give shares >= 0 of sft, reward, rl, evaluation"):
        check_shares(shares)
