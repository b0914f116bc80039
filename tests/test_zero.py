"""DeepSpeed by one override, stale locks, and options of TRL's that only have to reach it."""

import json
import logging
import os
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from rlhf_trl_ext.configuration.checks import build
from rlhf_trl_ext.zero import ops as zero_ops
from rlhf_trl_ext.zero import runtime as zero

CONFIGS = sorted((ROOT / "deepspeed_configs").glob("*.json"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_one_override_gives_the_file_and_its_stage(path, composed, monkeypatch):
    monkeypatch.chdir("/")
    for launcher in ("train", "pipeline"):
        given = composed(launcher, f"deepspeed={path.stem}").args.deepspeed
        assert given == json.loads(path.read_text())
        assert given["zero_optimization"]["stage"] == int(path.stem.removeprefix("zero")[0])


def test_deepspeed_is_left_out_by_default(composed):
    assert composed("train").args.deepspeed is None and composed("pipeline").args.deepspeed is None


def test_options_reach_trl(composed, tmp_path):
    def args(*options):
        config = composed("train", "algorithm=grpo", *(f"++args.{option}" for option in options))
        return build(config.args, "args", output_dir=str(tmp_path))

    server = args("use_vllm=true", "vllm_mode=server", "vllm_server_port=8001")
    assert (server.use_vllm, server.vllm_mode, server.vllm_server_port) == (True, "server", 8001)
    colocated = args("use_vllm=true", "vllm_gpu_memory_utilization=0.2", "vllm_tensor_parallel_size=2")
    assert (colocated.vllm_mode, colocated.vllm_gpu_memory_utilization) == ("colocate", 0.2)
    assert colocated.vllm_tensor_parallel_size == 2
    batching = args("use_transformers_continuous_batching=true", "transformers_continuous_batching_config={}")
    assert batching.use_transformers_continuous_batching
    sharded = args("fsdp=true", "fsdp_config={cpu_offload: true}")
    assert sharded.fsdp_plugin_args["fsdp_version"] == 2 and sharded.fsdp_plugin_args["cpu_offload"]


def test_a_lock_without_owner_is_removed_and_told(tmp_path, monkeypatch, caplog):
    for name in ("cpu_adam", "py311_cpu/shm"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    held, stale = tmp_path / "cpu_adam" / "lock", tmp_path / "py311_cpu" / "shm" / "lock"
    builder = subprocess.Popen(
        [sys.executable, "-c", f"import os, time; os.open({str(held)!r}, os.O_CREAT | os.O_EXCL); time.sleep(60)"]
    )
    try:
        stale.touch()
        while not held.exists():
            time.sleep(0.01)
        monkeypatch.setenv("WORLD_SIZE", "16")
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
        assert zero_ops.stale_locks() == []  # another machine may be building
        monkeypatch.setenv("WORLD_SIZE", "8")
        with caplog.at_level(logging.WARNING):
            zero_ops.remove_stale_locks()
        assert held.exists() and not stale.exists()
        assert f"{stale} was left by a build that was killed" in caplog.text
    finally:
        builder.kill()
        builder.wait()
    assert zero_ops.stale_locks() == [held]


def test_whole_weights_are_not_split():
    from transformers.integrations import HfDeepSpeedConfig, is_deepspeed_zero3_enabled

    config = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}})
    assert is_deepspeed_zero3_enabled()
    with zero.whole_weights():
        assert not is_deepspeed_zero3_enabled()
    assert is_deepspeed_zero3_enabled()
    del config
    assert not is_deepspeed_zero3_enabled()


@pytest.mark.slow
def test_one_process_without_accelerate_uses_deepspeed_and_resumes(few, tmp_path):
    """With ZeRO-3 and offload, which holds back most; what else differs is shown in two processes (test_equality)."""
    command = [sys.executable, "-m", "launchers.train", "algorithm=dpo", "deepspeed=zero3_offload", *few]
    command += [f"output_dir={tmp_path / 'out'}", f"output_root={tmp_path}", "args.save_steps=2"]

    def losses_and_weights():
        done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
        rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
        saved = (tmp_path / "out" / "model.safetensors").read_bytes()
        return [row.get("loss", row.get("train_loss")) for row in rows], saved, done.stderr

    whole = losses_and_weights()
    assert len(whole[0]) == 5
    (state,) = tmp_path.glob("out/checkpoint-4/global_step4/*optim_states.pt")
    state.write_bytes(state.read_bytes()[:-1])
    (tmp_path / "out" / "stage.json").unlink()
    again = losses_and_weights()
    assert f"{state.name} is damaged" in again[2] and "set aside as broken-checkpoint-4" in again[2]
    assert again[:2] == whole[:2]
