import json
import math
from types import SimpleNamespace

import pytest

from rlhf_trl_ext.callbacks.records import MetricsRecorder, generations, read_metrics
from rlhf_trl_ext.rewards.gold import GoldReward
from rlhf_trl_ext.stages.train import train


def args(**changes):
    default = dict(gradient_accumulation_steps=1, steps_per_generation=1, num_iterations=1, generation_batch_size=8)
    return SimpleNamespace(**{**default, **changes})


def test_generation_batches_by_hand():
    assert generations(args(), 5) == 5
    # Two micro-steps a step, four micro-steps a batch: batches start at steps 1, 3 and 5.
    assert generations(args(gradient_accumulation_steps=2, steps_per_generation=4), 5) == 3
    # Every batch is used twice: steps 1-2, 3-4, 5.
    assert generations(args(num_iterations=2), 5) == 3


def test_a_resumed_run_continues_at_its_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = {"step": 2, "seconds": 10.0, "sampled_tokens": 7, "completions/mean_length": 2.0}
    path.write_text(f'{json.dumps(first)}\n{{"step": 3, "seconds": 15.0}}\n{{"torn')
    recorder = MetricsRecorder(tmp_path)
    state = SimpleNamespace(global_step=2, max_steps=4, is_world_process_zero=True)
    recorder.on_train_begin(args(), state, None)
    state.global_step = 3
    recorder.on_log(args(), state, None, logs={"loss": 1.0, "completions/mean_length": 2.0})
    rows = read_metrics(path)
    assert [row["step"] for row in rows] == [2, 3]
    assert rows[1]["sampled_tokens"] == 7 + 2 * 8 and 10 <= rows[1]["seconds"] < 11


def test_metrics_are_strict_json_also_where_a_loss_is_no_number(tmp_path):
    state = SimpleNamespace(global_step=1, max_steps=4, is_world_process_zero=True)
    recorder = MetricsRecorder(tmp_path)
    recorder.on_train_begin(args(), state, None)
    recorder.on_log(args(), state, None, logs={"loss": float("nan"), "grad_norm": float("inf"), "reward": 1.0})
    recorder.on_train_begin(args(), state, None)  # a resumed run writes the rows again
    text = (tmp_path / "metrics.jsonl").read_text()
    row = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert row["loss"] is None and row["grad_norm"] is None and row["reward"] == 1.0
    assert math.isnan(read_metrics(tmp_path / "metrics.jsonl")[0]["loss"])


WATCHED = ["held_out=gold", "held_out.prompts=8", "held_out.args.per_device_eval_batch_size=8"]


GRPO = ["algorithm=grpo", "++args.num_generations=4", "++args.steps_per_generation=2", "++args.max_steps=7"]
# Its reference batches count as well.
PPO = ["algorithm=ppo", "++args.critic_path=null", "++args.per_device_train_batch_size=16", "++args.max_steps=5"]


@pytest.mark.parametrize(
    "algorithm, more",
    [(GRPO, []), (GRPO, [*WATCHED, "held_out.functions=[{_target_: conftest.DistinctCharacters}]"]), (PPO, [])],
)
def test_sampled_tokens_are_all_completion_tokens_scored(algorithm, more, composed, few, tmp_path, monkeypatch):
    seen = []

    def counting(self, prompts, completions, completion_ids, **kwargs):
        seen.extend(len(ids) for ids in completion_ids if len(prompts) == 16)  # evaluations have 8
        return [float(len(ids)) for ids in completion_ids]

    monkeypatch.setattr(GoldReward, "__call__", counting)
    few = [*few, "++args.max_completion_length=8", "reward=gold", "++args.logging_steps=3", *algorithm, *more]
    record = train(composed("train", f"output_root={tmp_path}", *few))
    assert record["sampled_tokens"] == sum(seen)
