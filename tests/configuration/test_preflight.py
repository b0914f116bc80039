import re
import shutil
import subprocess
import sys
import types

import pytest
from conftest import ROOT
from packaging.requirements import Requirement

from rlhf_trl_ext.configuration import preflight as module
from rlhf_trl_ext.configuration import vllm_arguments
from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.configuration.preflight import preflight
from rlhf_trl_ext.configuration.row_counts import enough_rows

BAD = [
    (["algorithm=grpo", "++args.num_generations=3"], "args.num_generations=3: the generation batch of 8 "),
    (
        ["algorithm=grpo", "evaluate=true", "++args.num_generations=6", "++args.per_device_train_batch_size=6"],
        "evaluate=true with args.num_generations=6: args.per_device_eval_batch_size=8 x 1 processes must be a multiple",
    ),
    (
        ["algorithm=grpo", "deepspeed=zero3", "++args.ds3_gather_for_generation=false"],
        "args.ds3_gather_for_generation=false with ZeRO-3: every token gathers",
    ),
    (
        ["algorithm=dpo", "deepspeed=zero3", "++model.load_in_4bit=true", "++model.use_peft=true"],
        "model.load_in_4bit=true with ZeRO-3: .* deepspeed=zero2",
    ),
    (["algorithm=sft", "++model.load_in_8bit=true"], "model.load_in_8bit=true: packed weights cannot be trained"),
    (["algorithm=ppo", "++args.kl_target=5.0", "++args.kl_coef=0.0"], "args.kl_target=5.0 with args.kl_coef=0: "),
    (["algorithm=grpo", "++args.use_vllm=true"], "args.use_vllm=true: vLLM is not installed; `make setup-gpu`"),
    (["algorithm=sft", "++args.fp16=true"], "args.fp16=true with args.use_cpu=true: "),
    (["algorithm=sft", "++args.bf16=null"], "args.bf16=null with args.use_cpu=true "),
    (["algorithm=sft", "++args.load_best_model_at_end=true"], "save_strategy=steps and eval_strategy=no: "),
    (
        ["algorithm=sft", "++args.load_best_model_at_end=true", "++args.eval_strategy=steps", "++args.eval_steps=300"],
        "args.save_steps=500 .* a multiple of eval_steps=300",
    ),
    (["algorithm=sft", "++args.packing=true"], "args.packing=true with model.attn_implementation=None: "),
    (["algorithm=sft", "++args.padding_free=true"], "args.padding_free=true with "),
    (["algorithm=sft", "++args._target_=trl.DPOConfig"], r"args._target_=trl.DPOConfig: SFTTrainer takes SFTConfig"),
    (["algorithm=sft", "++trainer._target_=trl.SFTConfig"], "trainer._target_=trl.SFTConfig: it is no trainer; give a"),
    (["algorithm=grpo", "reward=gold", "++args.reward_weights=[1.0,2.0]"], r"args.reward_weights=\[1.0,2.0\]: 2 for 1"),
    (["algorithm=grpo", "++args.generation_kwargs={temperature: -1}"], "kwargs.temperature=-1: above 0 is needed"),
    (["algorithm=grpo", "++args.importance_sampling_level=x"], "importance_sampling_level=x: allowed are token, seq"),
    (["algorithm=sft", "++args.activation_offloading=true"], "args.activation_offloading=true with args.use_cpu=true"),
    (["algorithm=sft", "++args.lr_scheduler_type=foo"], "args.lr_scheduler_type=foo: allowed are linear, cosine"),
    (["algorithm=sft", "++args.lr_scheduler_kwargs={foo: 1}"], "args.lr_scheduler_kwargs.foo=1: no such word; allowed"),
    (["algorithm=sft", "++args.gradient_checkpointing_kwargs={use_rentrant: true}"], "did you mean use_reentrant"),
    (["algorithm=sft", "++args.torch_compile_backend=nope"], "args.torch_compile_backend=nope: allowed are no, eager"),
    (
        ["algorithm=sft", "++model.use_peft=true", "++model.lora_task_type=LM"],
        "lora_task_type=LM: allowed are SEQ_CLS",
    ),
    (["algorithm=sft", "++args.optim=adamw_bnb_8bit"], "args.optim=adamw_bnb_8bit: bitsandbytes is not installed; pip"),
    (["algorithm=dpo", "+budget={sampled_tokens: 3}"], "budget.sampled_tokens=3: algorithm=dpo samples none"),
    (["algorithm=sft", "++args.deepspeed=/no.json"], "args.deepspeed=/no.json: no DeepSpeed configuration in JSON"),
    (["algorithm=sft", "++args.report_to=[none,wand]"], "args.report_to=wand: allowed are none, all, azure_ml, "),
    (["algorithm=sft", "++args.report_to=true"], "args.report_to=True: allowed are none, all"),
    (["algorithm=sft", "++args.report_to=comet_ml"], "args.report_to=comet_ml: it is not installed; pip install comet"),
    (
        ["algorithm=sft", "++model.attn_implementation=spda"],
        "model.attn_implementation=spda: allowed are eager, flash_",
    ),
    (["algorithm=sft", "++model.attn_implementation=flash_attention_2"], "flash-attn is not installed, or there is no"),
    (["algorithm=grpo", "++args.generation_kwargs={top_kk: 1}"], r"kwargs.top_kk: .* no such word; did you mean top_k"),
    (["algorithm=sft", "++args.lerning_rate=1"], "did you mean learning_rate"),
]


def refusal_of(config) -> str:
    with pytest.raises(ConfigError) as caught:
        preflight(config)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize(("overrides", "expected"), BAD)
def test_a_bad_combination_is_told_with_its_remedy(overrides, expected, composed, monkeypatch):
    monkeypatch.setattr(vllm_arguments, "_installed", lambda package: None)
    monkeypatch.setattr("transformers.integrations.integration_utils.get_available_reporting_integrations", list)
    monkeypatch.setattr("transformers.utils.is_bitsandbytes_available", lambda: "load_in" in str(overrides))
    for check in ("is_kernels_available", "is_flash_attn_2_available"):
        monkeypatch.setattr(f"transformers.utils.{check}", lambda: False)
    assert re.search(expected, refusal_of(composed("train", *overrides)))


ALGORITHMS = ("sft", "reward", "dpo", "kto", "grpo", "rloo", "ppo", "grpo_offpolicy", "grpo_vi")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_the_project_offers_passes(algorithm, composed):
    config = composed("train", f"algorithm={algorithm}", "deepspeed=zero3")
    preflight(config)
    assert [find(module.Run(config)) for find in module.CHECKS] == [None] * len(module.CHECKS)


def test_a_controller_with_a_reference_passes(composed):
    run = module.Run(composed("train", "algorithm=ppo", "++args.kl_target=5.0"))
    assert run.argument("kl_target") == 5.0
    assert module.controller_without_reference(run) is None


def test_vllm_outside_the_range_of_trl(composed, monkeypatch):
    config = composed("train", "algorithm=grpo", "++args.use_vllm=true")
    monkeypatch.setattr(vllm_arguments, "_installed", lambda package: "0.10.2")
    assert "vLLM 0.10.2 is installed and TRL needs " in refusal_of(config)
    assert ".ci/constraints-gpu.txt" in refusal_of(config)
    versions = {"vllm": "0.25.0+cu129", "transformers": "5.23.0", "torch": "2.13.0+cpu"}
    monkeypatch.setattr(vllm_arguments, "_installed", versions.get)
    preflight(config)
    monkeypatch.setattr(
        vllm_arguments, "_needs", lambda package: [Requirement("torch==2.13.0"), Requirement("transformers<5.18")]
    )
    assert "vLLM 0.25.0+cu129 needs transformers<5.18 and 5.23.0 is installed" in refusal_of(config)


@pytest.mark.parametrize(("name", "value"), [("top_p", 0.9), ("top_k", 20), ("min_p", 0.05)])
def test_vllm_with_a_cut_distribution(name, value, composed, monkeypatch):
    monkeypatch.setattr(vllm_arguments, "_installed", {"vllm": "0.25.0"}.get)
    cut = composed("train", "algorithm=grpo", "++args.use_vllm=true", f"++args.{name}={value}")
    assert refusal_of(cut).startswith(f"args.{name}={value} with args.use_vllm=true: the importance ratio is biased")
    cut.args.vllm_importance_sampling_correction = False
    preflight(cut)
    whole = composed("train", "algorithm=grpo", "++args.use_vllm=true", "++args.top_p=1.0", "++args.top_k=0")
    preflight(whole)
    preflight(composed("train", "algorithm=rloo", "++args.use_vllm=true", f"++args.{name}={value}"))


def test_a_server_of_vllm_is_sent_weights_by_gpus_only(composed, monkeypatch):
    monkeypatch.setattr(vllm_arguments, "_installed", {"vllm": "0.25.0"}.get)
    asked = ["algorithm=grpo", "++args.use_vllm=true", "++args.vllm_mode=server"]
    assert refusal_of(composed("train", *asked)).startswith("args.vllm_mode=server with args.use_cpu=true: TRL sends")
    preflight(composed("train", *asked[:2]))


def test_fewer_processes_than_asked_for(composed, monkeypatch):
    config = composed("train", "algorithm=sft", "++num_processes=4")
    assert refusal_of(config).startswith("num_processes=4: 1 of them run; start with `accelerate launch --multi_gpu")
    monkeypatch.setenv("WORLD_SIZE", "4")
    preflight(config)


def test_more_processes_count_in_the_generation_batch(composed, monkeypatch):
    config = composed("train", "algorithm=grpo", "++args.per_device_train_batch_size=3", "++args.num_generations=6")
    assert "batch of 3 (" in refusal_of(config)
    monkeypatch.setenv("WORLD_SIZE", "2")
    preflight(config)


def test_without_a_gpu_the_remedy_is_the_cpu(composed, monkeypatch):
    monkeypatch.setattr(module.torch.accelerator, "is_available", lambda: False)
    sentence = refusal_of(composed("train", "algorithm=sft", "model=0.5b"))
    assert sentence == "no GPU is found and args.use_cpu=false: give args.use_cpu=true args.bf16=false."


def test_offload_without_a_compiler(composed, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "offload compiles operators and there is no g++" in refusal_of(composed("train", "deepspeed=zero3_offload"))
    preflight(composed("train", "deepspeed=none"))


def test_fewer_rows_than_a_batch():
    args = types.SimpleNamespace(per_device_train_batch_size=8, world_size=2)
    enough_rows(16, args)
    with pytest.raises(ConfigError, match=r"^dataset has 15 rows and a batch needs 16 \(per_device_train_batch_size x"):
        enough_rows(15, args)
    online = types.SimpleNamespace(**vars(args), steps_per_generation=4, generation_batch_size=64, num_generations=8)
    enough_rows(8, online)
    with pytest.raises(ConfigError, match=r"^dataset has 7 rows and a batch needs 8 \(generation_batch_size"):
        enough_rows(7, online)


@pytest.mark.slow
def test_accelerate_that_runs_one_process_is_caught(tmp_path):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "-m"]
    command += ["launchers.train", "algorithm=sft", f"output_root={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "error: accelerate launch --num_processes=2: 1 of them run; start with" in done.stderr
