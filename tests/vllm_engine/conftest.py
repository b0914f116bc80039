"""The real vLLM engine on a CPU: in this process beside a trainer, and as a server (`make vllm`)."""

import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from conftest import ON_CPU, ROOT

# A gibibyte for the cache, no threads bound to cores, and the decode step traced but not translated to C++.
ENGINE = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_CI_ENV": "1"}
SHAPE = {"hidden": 64, "heads": 1, "kv_heads": 1, "head_dim": 64, "intermediate": 64}  # a head that it has kernels for
SETTINGS = {
    **ON_CPU,
    "save_strategy": "no",
    "disable_tqdm": True,
    "per_device_train_batch_size": 4,
    "steps_per_generation": 2,
    "num_iterations": 1,
    "num_generations": 4,
    "max_completion_length": 8,
    "max_steps": 12,
    "learning_rate": 1e-2,
    "lr_scheduler_type": "constant",
    "use_vllm": True,
}
COLOCATED = {"vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.1, "vllm_max_model_length": 128}
PLUGIN = "[vllm.general_plugins]\nunpacked = rlhf_trl_ext.trainers.parts.vllm_engine:keep_unpacked\n"


@pytest.fixture(scope="session", autouse=True)
def engine():
    if not list(importlib.metadata.distributions(name="vllm")):
        pytest.skip("vLLM is absent: make vllm")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENGINE.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def policy(tmp_path_factory):
    """Folder of an untrained policy."""
    from evaluation.proofs.memory.shapes import build_shape

    folder = tmp_path_factory.mktemp("policy")
    build_shape(folder, **SHAPE)
    return str(folder)


@pytest.fixture
def in_float32(monkeypatch):
    """Engines compute as the trainers do; what vLLM makes of weights in float32 is bfloat16."""
    from trl.generation import vllm_generation

    built = vllm_generation.LLM
    monkeypatch.setattr(vllm_generation, "LLM", lambda **options: built(**options, dtype="float32"))


def distinct(completions, **kwargs):
    """Distinct characters: differs between the completions of an untrained model."""
    return [float(len(set(completion[0]["content"]))) for completion in completions]


def classes(name):
    """Trainer, its arguments' class and arguments."""
    if name == "ppo":
        from rlhf_trl_ext.trainers.ppo import PPOConfig, PPOTrainer

        return PPOTrainer, PPOConfig, {"beta": 0.05}
    if name == "grpo_offpolicy":
        from rlhf_trl_ext.trainers.grpo_offpolicy import OffPolicyGRPOConfig, OffPolicyGRPOTrainer

        return OffPolicyGRPOTrainer, OffPolicyGRPOConfig, {"replay_ratio": 1.0, "ess_min": 0}
    if name == "grpo_vi":
        from rlhf_trl_ext.trainers.grpo_vi import GRPOVIConfig, GRPOVITrainer

        return GRPOVITrainer, GRPOVIConfig, {}
    from rlhf_trl_ext.trainers.grpo import GRPOConfig, GRPOTrainer

    return GRPOTrainer, GRPOConfig, {}


@pytest.fixture
def make(policy, tmp_path):
    """`make(name, lora=False, reward_funcs=..., folder=..., **settings)`: a trainer with an engine, not yet trained."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer

    def trainer(name="grpo", lora=False, reward_funcs=distinct, folder=tmp_path, **settings):
        trainer_class, args_class, own = classes(name)
        args = args_class(output_dir=str(folder), **{**SETTINGS, **COLOCATED, **own, **settings})
        prompts = [{"prompt": [{"role": "user", "content": "lamp " * (1 + i % 4)}]} for i in range(24)]
        given = {"train_dataset": Dataset.from_list(prompts), "processing_class": AutoTokenizer.from_pretrained(policy)}
        if lora:
            given["peft_config"] = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
        return trainer_class(policy, reward_funcs, args, **given)

    return trainer


@pytest.fixture
def ratios():
    """`ratios(trainer)`: least and largest importance ratio, trainer to engine, of every generation batch."""
    name = "sampling/importance_sampling_ratio"

    def of(trainer):
        return [(row[f"{name}/min"], row[f"{name}/max"]) for row in trainer.state.log_history if f"{name}/min" in row]

    return of


@pytest.fixture(scope="session")
def judge_model(policy, tmp_path_factory):
    """Folder of a model of the policy's shape that has learnt to answer A or B."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("judge")
    tokenizer, model = AutoTokenizer.from_pretrained(policy), AutoModelForCausalLM.from_pretrained(policy)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(30):
        asked = [{"role": "user", "content": f"{'dog cat red'[step % 9 :]} A: B: {step % 4} A or B?"}]
        given = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        letters = tokenizer("AB", add_special_tokens=False)["input_ids"]
        logprobs = model(**given).logits[0, -1].log_softmax(-1)[letters]
        (-logprobs.mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def server(judge_model, tmp_path_factory):
    """Address of `vllm serve` with `judge_model`, in float32, with the endpoints of development."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("serve")
    plugin = folder / "unpacked-0.dist-info"  # found by the processes that the server starts
    plugin.mkdir()
    (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: unpacked\nVersion: 0\n")
    (plugin / "entry_points.txt").write_text(PLUGIN)
    command = [str(Path(sys.executable).with_name("vllm")), "serve", judge_model, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--dtype", "float32", "--max-model-len", "1024", "--max-num-seqs", "16"]
    command += ["--logprobs-mode", "processed_logprobs", "--max-logprobs", "-1"]
    command += ["--weight-transfer-config", json.dumps({"backend": "nccl"})]
    variables = {**os.environ, "VLLM_SERVER_DEV_MODE": "1", "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    log = folder / "log.txt"
    with open(log, "w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=variables, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{address}/health", timeout=1)
            break
        except OSError:
            assert process.poll() is None, log.read_text()[-3000:]
            time.sleep(0.5)
    yield address
    process.terminate()
    process.wait(30)
