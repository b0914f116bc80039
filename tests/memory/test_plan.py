from dataclasses import replace

import pytest

from evaluation.proofs.memory.cases import Case
from evaluation.proofs.memory.coefficients import saved
from evaluation.proofs.memory.shapes import Shape
from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.memory.activations import Arithmetic, Batch, Passes
from rlhf_trl_ext.memory.advice import advise, fits, largest, milder, remedy, with_length, with_rows
from rlhf_trl_ext.memory.architecture import architecture, find_config
from rlhf_trl_ext.memory.cards import GIB, card_bytes
from rlhf_trl_ext.memory.phases import Workload, predict
from rlhf_trl_ext.memory.plan import plan
from rlhf_trl_ext.memory.sharding import Role, Sharding, gathered, held
from rlhf_trl_ext.memory.table import details, table
from rlhf_trl_ext.memory.workload import workload

SHAPE = Shape(hidden=64, heads=4, kv_heads=2, head_dim=16, intermediate=128, layers=3, vocabulary=1000)


@pytest.fixture(scope="module")
def small():
    return architecture(SHAPE.config())


def test_parameters_are_counted_without_weights(small):
    # A layer: queries and output 64 x 64, keys and values 64 x 32, three matrices 64 x 128; two norms of 64.
    layer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128
    assert small.layer_weights == layer and small.linear_weights == 3 * layer
    assert small.parameters == 3 * (layer + 128) + 64 + 64_000  # the last norm, and an embedding that is the head too


@pytest.mark.parametrize(
    ("name", "billions"),
    [("Qwen/Qwen2.5-7B-Instruct", 7.616), ("Qwen/Qwen3-0.6B", 0.596), ("meta-llama/Llama-3.1-70B-Instruct", 70.554)],
)
def test_known_models_have_the_published_number_of_parameters(name, billions):
    assert round(architecture(find_config(name)).parameters / 1e9, 3) == billions


def test_a_mixture_of_experts_is_refused():
    fields = {"model_type": "mixtral", "num_hidden_layers": 1}
    with pytest.raises(ValueError, match="mixtures of experts"):
        architecture(find_config("somewhere", fields))


def test_states_without_zero_and_with_ddp(small):
    role, count = Role("policy", small, weight_bytes=4, trains=True), small.parameters
    alone = held(role, Sharding())
    assert (alone["weights"], alone["gradients"], alone["optimizer"]) == (4 * count, 4 * count, 8 * count)
    assert alone["buckets"] == 0 and held(role, Sharding(processes=2))["buckets"] == 4 * count


def test_zero_divides_what_its_stage_says(small):
    role, count = Role("policy", small, weight_bytes=2, trains=True), small.parameters
    parts = {stage: held(role, Sharding(8, stage, True)) for stage in (1, 2, 3)}
    assert [parts[stage]["optimizer"] for stage in parts] == [12 * count / 8] * 3
    assert [parts[stage]["gradients"] for stage in parts] == [2 * count, 2 * count / 8, 2 * count / 8]
    assert [parts[stage]["weights"] for stage in parts] == [2 * count, 2 * count, 2 * count / 8]
    frozen = held(Role("reference", small, weight_bytes=2), Sharding(8, 3, True))
    assert frozen["weights"] == 2 * count / 8 and frozen["optimizer"] == 0
    assert gathered(role, Sharding(8, 3, True)) == 2 * count and gathered(role, Sharding(8, 2, True)) == 0


def test_buckets_hold_gradients_until_they_are_reduced(small):
    role, count = Role("policy", small, weight_bytes=2, trains=True), small.parameters
    # Two buckets of a tenth of the parameters; one of them waits whole, more than the sixteenth that stays.
    kinds = held(role, Sharding(16, 2, True, bucket=count // 10, buckets=2))
    assert kinds["buckets"] == 2 * (count // 10) * 2 and kinds["gradients"] == (count // 10) * 2
    large = Sharding(16, 2, True, bucket=10 * count, buckets=2)
    assert held(role, large)["buckets"] == 2 * 10 * count * 2  # CUDA allocates it whole
    assert held(role, replace(large, lazily=True))["buckets"] == 2 * count * 2


def test_offload_moves_to_the_host(small):
    role, count = Role("policy", small, weight_bytes=2, trains=True), small.parameters
    kinds = held(role, Sharding(4, 3, True, offload_optimizer=True, offload_weights=True))
    assert kinds["weights"] == kinds["gradients"] == kinds["optimizer"] == 0
    assert kinds["host"] == (2 + 2 + 12) * count / 4


def test_a_quantised_base_holds_packed_matrices(small):
    role = Role("policy", small, weight_bytes=2, quantised="4bit")
    rest = small.parameters - small.linear_weights
    assert held(role, Sharding())["weights"] == 0.5625 * small.linear_weights + 2 * rest


@pytest.mark.parametrize("mode", ["float32", "autocast"])
def test_saved_activations_are_those_of_a_model_of_another_shape(mode, small):
    # 112 hidden units, 2 layers: no shape that the coefficients were fitted on.
    shape = Shape(hidden=112, heads=4, kv_heads=2, head_dim=32, intermediate=352, layers=2)
    batch = Batch(rows=3, length=192)
    predicted = Passes(architecture(shape.config()), Arithmetic(mode, "cpu", checkpointing=False)).saved(batch)
    measured = saved(Case(shape, mode, rows=3, length=192))
    assert predicted == pytest.approx(measured, rel=0.03)


def test_logits_are_a_tile_of_trls_fused_head(small):
    batch = Batch(rows=2, length=50, scored=30)
    passes = Passes(small, Arithmetic("bfloat16", "cuda"))
    tile = 60 * 32768 * 2  # 2 x 30 scored tokens, the width of a tile, 2 bytes
    assert passes.logits(batch, backward=False) == tile
    assert passes.logits(batch, backward=True) == tile + 4 * 60 * 64 + 4 * 64_000  # gradients of states and head
    assert Passes(small, Arithmetic("bfloat16", "cuda"), lora=True).logits(batch, True) == tile + 4 * 60 * 64


def load(sizes, **changed):
    role = Role("policy", sizes, weight_bytes=4, trains=True)
    given = {"roles": (role,), "sharding": Sharding(), "arithmetic": Arithmetic("float32", checkpointing=False)}
    return Workload(**{**given, "batch": Batch(4, 128, 128), **changed})


def test_the_peak_is_the_largest_phase(small):
    result = predict(load(small))
    assert result.base == 12 * small.parameters
    assert sum(result.phases["optimizer step"].values()) == 4 * small.parameters
    assert result.peak == result.base + max(sum(parts.values()) for parts in result.phases.values())
    assert result.peak_phase == "backward, logits"
    one_row = predict(load(small, batch=Batch(1, 1, 1), roles=(replace(load(small).roles[0], weight_bytes=400),)))
    assert one_row.peak_phase == "backward, embedding"  # weights outweigh activations


def test_the_layer_that_checkpointing_computes_anew_is_there_in_backward_alone(small):
    passes, batch = Passes(small, Arithmetic("float32", checkpointing=True)), Batch(4, 128, 128)
    whole = Passes(small, Arithmetic("float32", checkpointing=False))
    one_layer = (whole.saved(batch) - 9.112 * 512 * 64) / 3  # 512 tokens; 9.112 bytes a hidden unit outside the layers
    assert passes.kept(batch) == pytest.approx(9.112 * 512 * 64 + 3 * 4 * 512 * 64)  # inputs of three layers, 4 bytes
    assert passes.saved(batch) == pytest.approx(passes.kept(batch) + one_layer)
    result = predict(load(small, arithmetic=passes.arithmetic, reference_in_loss=True))
    assert result.phases["backward, logits"]["activations"] == passes.kept(batch)
    assert result.phases["reference forward"]["activations"] == passes.kept(batch) + passes.forward(batch)


def test_the_reference_of_adapters_is_the_model_without_them(small):
    role, arithmetic = replace(load(small).roles[0], lora=True), Arithmetic("bfloat16")
    result = predict(load(small, roles=(role,), arithmetic=arithmetic, reference_in_loss=True))
    batch, bare, adapted = Batch(4, 128, 128), Passes(small, arithmetic), Passes(small, arithmetic, lora=True)
    assert result.phases["reference forward"]["activations"] == adapted.kept(batch) + bare.forward(batch)


def test_compiled_sampling_keeps_its_cache(small):
    settings = {"generated": 8, "prompt": 64, "arithmetic": Arithmetic("bfloat16")}
    grows, stays = (predict(load(small, compiled=compiled, **settings)) for compiled in (False, True))
    # Keys and values, 2 bytes, 8 rows of 128 tokens, 3 layers, 2 heads of 16.
    assert stays.constant["static cache"] == 2 * 2 * 8 * 128 * 3 * 32 == stays.base - grows.base
    assert grows.phases["generation"]["KV cache"] > 0 == stays.phases["generation"]["KV cache"]


@pytest.mark.parametrize(
    ("overrides", "compiled"),
    [
        ([], True),  # of unknown length, on CUDA
        (["++args.max_steps=100"], True),  # 100 batches of 256 tokens
        (["++args.max_steps=7"], False),  # 1,792 decode steps, less than compiling takes
        (["++args.max_steps=7", "++args.compiled_generation=on"], True),
        (["++args.compiled_generation=off"], False),
        (["++args.use_cpu=true"], False),
        (["deepspeed=zero3"], False),
    ],
)
def test_whether_sampling_is_compiled(overrides, compiled, composed):
    one = ["algorithm=grpo", "reward=gold", "++args.use_cpu=false", "++args.steps_per_generation=1"]
    run = workload(composed("plan", *one, "plan.card=h100", *overrides))
    assert run.compiled == compiled
    assert run.workspaces == (0 if "++args.use_cpu=true" in overrides else 65 * 2**20)


def test_more_rows_longer_rows_and_no_checkpointing_need_more(small):
    peak = predict(load(small)).peak
    assert predict(load(small, batch=Batch(8, 128, 128))).peak > peak
    assert predict(load(small, batch=Batch(4, 256, 256))).peak > peak
    many = architecture(replace(SHAPE, layers=12).config())
    saving = Arithmetic("float32", checkpointing=True)
    assert predict(load(many, arithmetic=saving)).peak < predict(load(many)).peak


def test_the_largest_batch_fits_and_one_more_does_not(small):
    run = load(small)
    room = predict(with_rows(run, 9)).peak
    rows = largest(with_rows, run, room, 1, 4096)
    assert rows >= 9 and fits(with_rows(run, rows), room) and not fits(with_rows(run, rows + 1), room)
    assert advise(run, room)[0].startswith(f"room for args.per_device_train_batch_size={rows}, or")
    less = predict(with_rows(run, 3)).peak
    assert remedy(run, less) == f"args.per_device_train_batch_size={largest(with_rows, run, less, 1, 4)}"


def test_rows_are_no_longer_than_the_models_context(small):
    run = load(small)
    room = predict(with_length(run, 640)).peak  # for 640 tokens, were there no context
    assert advise(run, room)[0].endswith("or for rows of 640 tokens")
    (sentence,) = advise(replace(run, context=512), room)
    assert sentence.endswith("or for rows of 512 tokens (the model's context)")


def test_what_does_not_fit_is_told_the_mildest_change(small):
    sizes = architecture(replace(SHAPE, layers=12).config())
    run = load(sizes, sharding=Sharding(8, lazily=True), batch=Batch(1, 16, 16), accumulates=True)
    peaks = {name: predict(changed).peak for name, changed in milder(run)}
    assert list(peaks) == ["args.gradient_checkpointing=true", *(f"deepspeed=zero{stage}" for stage in (1, 2, 3)),
                           "deepspeed=zero3_offload"]  # fmt: skip
    assert peaks["deepspeed=zero2"] > peaks["deepspeed=zero3"] > peaks["deepspeed=zero3_offload"]
    assert advise(run, peaks["deepspeed=zero3"])[-1] == "fits with deepspeed=zero3"
    assert remedy(run, peaks["deepspeed=zero3"]) == "deepspeed=zero3" and remedy(run, room=1000) is None
    assert advise(run, room=1000)[-1].startswith("fits with no ZeRO stage")


def test_the_command_of_the_documentation(composed):
    config = composed("plan", "algorithm=ppo", "model=7b", "deepspeed=zero3", "num_gpus=8")
    run = workload(config)
    assert [role.name for role in run.roles] == ["policy", "reward", "critic"]  # LoRA: the base is the reference
    assert run.sharding.stage == 3 and run.sharding.processes == 8 and run.arithmetic.mode == "bfloat16"
    assert (run.batch.rows, run.batch.length, run.generated, run.prompt) == (1, 768, 8, 512)
    typed = ["algorithm=ppo", "model=7b", "deepspeed=zero3", "num_gpus=8", "plan.card=80"]
    result, (verdict, command, room), title = plan(config, typed)
    assert title == "ppo: LoRA, 80.7 M of 7.62 B parameters, bfloat16, ZeRO-3, 8 processes, 1 row of 768 tokens"
    peak = f"{result.peak / GIB:.1f} of 78.0 GiB that are free, at the peak ({result.peak_phase})"
    assert verdict == f"fits each card of 80 GiB: {peak}. Smallest that holds it: a10, l4, rtx3090, rtx4090 (24 GiB)."
    launch = "accelerate launch --multi_gpu --num_processes 8 -m launchers.train"
    assert command == f"run: {launch} algorithm=ppo model=7b deepspeed=zero3"
    assert room.endswith("rows of 32768 tokens (the model's context)")  # Qwen2.5's
    # All of the 7.6 B weights are gathered to generate, 14.2 GiB: that is where this run's peak is.
    assert result.peak_phase in ("generation", "prompts") and 14.2 * GIB < result.peak < 20 * GIB


@pytest.mark.parametrize(
    ("overrides", "roles", "rows"),
    [
        (["algorithm=dpo"], ["policy", "reference"], 16),
        (["algorithm=dpo", "++model.use_peft=true"], ["policy"], 16),
        (["algorithm=reward"], ["policy"], 16),
        (["algorithm=grpo", "reward=gold"], ["policy", "reference"], 8),
        (["algorithm=grpo", "reward=gold", "++args.beta=0.0"], ["policy"], 8),
        (["algorithm=grpo_vi", "reward.path=Qwen/Qwen3-0.6B"], ["policy", "reference", "reward", "critic"], 8),
    ],
)
def test_roles_and_rows_of_algorithms(overrides, roles, rows, composed):
    run = workload(composed("plan", "model=0.5b", *overrides))
    assert [role.name for role in run.roles] == roles
    assert run.batch.rows == rows


def test_a_run_that_does_not_fit_is_given_the_command_that_does(composed):
    config = composed("plan", "algorithm=dpo", "model=0.5b", "plan.card=t4", "++args.per_device_train_batch_size=64")
    _, (verdict, command, *_), title = plan(config, ["model=0.5b", "++args.per_device_train_batch_size=64"])
    assert verdict.startswith("does not fit one t4 (16 GiB): ") and "LoRA" not in title
    rows = int(command.rpartition("=")[2])
    assert command == f"run, which fits: python -m launchers.train model=0.5b args.per_device_train_batch_size={rows}"
    config.args.per_device_train_batch_size = rows
    assert plan(config)[1][0].startswith("fits one t4")
    config.args.per_device_train_batch_size = rows + 1
    assert plan(config)[1][0].startswith("does not fit one t4")


def test_the_table_adds_up_to_the_peak(composed):
    prediction, _, _ = plan(composed("plan", "algorithm=dpo", "model=0.5b"))
    *rows, peak = (float(cell) for cell in table(prediction).columns[-1].cells)
    assert sum(rows) == pytest.approx(peak, abs=0.01 * len(rows)) and peak == round(prediction.peak / GIB, 2)
    assert details(prediction).row_count > table(prediction).row_count


def test_prompt_and_completion_share_the_models_context(composed):
    # SmolLM2 reads 8,192 tokens: 8,000 are a completion's, so no prompt of 512 is left room for.
    online = ["algorithm=grpo", "model=135m", "reward=gold"]
    run = workload(composed("plan", *online, "++args.max_completion_length=8000"))
    assert (run.prompt, run.batch.length, run.context) == (192, 8192, 8192)
    with pytest.raises(ConfigError, match=r"^args.max_completion_length=8192 with a prompt of 1 tokens: "):
        workload(composed("plan", *online, "++args.max_completion_length=8192"))
    assert workload(composed("plan", "algorithm=sft", "model=135m", "plan.length=9000")).batch.length == 8192


def test_mistakes_are_told():
    with pytest.raises(ValueError, match=r"^plan.card=gtx1: a number of GiB is allowed, or a10, "):
        card_bytes("gtx1")
    assert card_bytes("a100-40gb") == 40 * GIB == card_bytes(40)


def test_an_optimizer_without_a_formula_is_refused(composed):
    with pytest.raises(ConfigError, match=r"^args.optim=lion_8bit: planned can be adamw_8bit, "):
        workload(composed("plan", "model=0.5b", "++args.optim=lion_8bit"))
