"""Small runs in the layouts that other frameworks publish; the source of each stands beside it."""

import json
import os
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from evaluation.report import training
from evaluation.report.dashboard.runs import LoggedRuns
from evaluation.report.page import report
from evaluation.report.tables import tidy
from rlhf_trl_ext.adoption.run import adopt
from rlhf_trl_ext.callbacks.records import read_metrics


def copied(tiny, folder):
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns(".*"))
    return folder


def trl(tiny, run):
    """transformers.trainer_callback.TrainerState.save_to_json, in each checkpoint-<step> and in the final folder."""
    for step in (2, 10):
        state = {"global_step": step, "max_steps": 10, "log_history": [{"step": 2, "loss": 0.7, "epoch": 0.2}]}
        if step == 10:
            state["log_history"] += [{"step": 10, "loss": 0.5, "rewards/margins": 0.4}, {"step": 10, "eval_loss": 0.6}]
        copied(tiny, run / f"checkpoint-{step}")
        (run / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps(state))


def llama_factory(tiny, run):
    """hiyouga/LLaMA-Factory, src/llamafactory/train/callbacks.py: LogCallback writes trainer_log.jsonl."""
    copied(tiny, run)
    rows = [{"current_steps": 5, "total_steps": 10, "loss": 0.7, "lr": 1e-5, "accuracy": 0.6, "epoch": 0.5}]
    rows += [{"current_steps": 10, "total_steps": 10, "loss": 0.5, "elapsed_time": "0:01:05", "percentage": 100.0}]
    (run / "trainer_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = "stage: dpo\npref_beta: 0.2\nlearning_rate: 5.0e-6\ncutoff_len: 512\ntemplate: llama3\nbf16: true\n"
    (run / "training_args.yaml").write_text(arguments + "finetuning_type: lora\nlora_rank: 8\n")


def axolotl(tiny, run):
    """axolotl-ai-cloud/axolotl, docs/config-reference and docs/rlhf: a YAML, and what transformers' Trainer saves."""
    trl(tiny, run)
    (run / "config.yml").write_text(
        "base_model: me/base\nrl: dpo\nrl_beta: 0.3\nmicro_batch_size: 2\nflash_attention: true\n"
    )


def verl(tiny, run):
    """volcengine/verl, docs/advance/checkpoint.rst: global_step_<n>/actor; verl/utils/tracking.py: FileLogger."""
    actor = run / "global_step_4" / "actor"
    (actor / "huggingface").mkdir(parents=True)
    torch.save({}, actor / "model_world_size_1_rank_0.pt")
    rows = [{"step": n, "data": {"critic/rewards/mean": n / 10, "actor/pg_loss": 0.1}} for n in (1, 4)]
    (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / ".hydra").mkdir()
    config = "algorithm: {adv_estimator: grpo}\nactor_rollout_ref: {rollout: {n: 8}, model: {path: me/base}}\n"
    (run / ".hydra" / "config.yaml").write_text(config + "data: {train_batch_size: 64, max_response_length: 128}\n")


def openrlhf(tiny, run):
    """OpenRLHF/OpenRLHF, openrlhf/models/model.py: the head is `value_head_prefix` in config.json; and a script."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1)
    model.save_pretrained(copied(tiny, run))
    weights = load_file(run / "model.safetensors")
    weights["value_head.weight"] = weights.pop("score.weight")
    save_file(weights, run / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((run / "config.json").read_text())
    config |= {"value_head_prefix": "value_head", "normalize_reward": False, "architectures": None}
    (run / "config.json").write_text(json.dumps(config))
    (run / "train.sh").write_text(
        "deepspeed --module openrlhf.cli.train_rm --pretrain me/base \\\n --learning_rate 9e-6 --bf16 \\\n"
        " --dataset rows.jsonl --chosen_key good --rejected_key bad --packing_samples\n"
    )
    return model


RUNS = {"TRL": trl, "LLaMA-Factory": llama_factory, "Axolotl": axolotl, "verl": verl, "OpenRLHF": openrlhf}


@pytest.fixture
def adopted(tiny, tmp_path):
    def make(name):
        run = tmp_path / f"{name}-run"
        made = RUNS[name](tiny, run)
        return made, adopt(run, tmp_path / "adopted" / name), tmp_path / "adopted" / name

    return make


def test_four_frameworks_stand_side_by_side_in_the_dashboard(adopted):
    steps = {"TRL": [2, 10], "LLaMA-Factory": [5, 10], "Axolotl": [2, 10], "verl": [1, 4]}
    for name, expected in steps.items():
        _, record, folder = adopted(name)
        assert record["framework"] == name
        assert [row["step"] for row in read_metrics(folder / "metrics.jsonl")] == expected
    shown = {row["name"]: (row["step"], row["max_steps"]) for row in LoggedRuns(folder.parent).summaries()}
    assert shown == {"TRL": (10, 10), "LLaMA-Factory": (10, 10), "Axolotl": (10, 10), "verl": (4, 4)}


def test_four_frameworks_stand_side_by_side_with_ours_in_the_report(adopted, tmp_path):
    for name in ("TRL", "LLaMA-Factory", "Axolotl", "verl"):
        _, _, folder = adopted(name)
    own = tmp_path / "outputs" / "dpo"
    own.mkdir(parents=True)
    (own / "metrics.jsonl").write_text("".join(json.dumps({"step": n, "loss": 1 / n}) + "\n" for n in (1, 2, 4)))
    logs = training.read_logs([str(own.parent), str(folder.parent)])
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in training.table(logs).rows}
    header = training.table(logs).header[1:]
    assert rows["dpo"][:3] == ["this project", "4", "0.25"] and header[2] == "loss"
    assert rows["verl"][:2] == ["verl", "4"] and rows["verl"][header.index("reward")] == "0.4"
    assert rows["TRL"][header.index("rewards/margins")] == "0.4" and rows["Axolotl"][0] == "Axolotl"
    assert rows["LLaMA-Factory"][header.index("rewards/accuracies")] == "0.6"
    page = report(str(folder.parent), logs=[str(own.parent)], output=str(tmp_path / "page.html"), pdf=False)["html"]
    text = page.read_text()
    assert all(f">{name}</td>" in text for name in rows) and "Nothing here was judged" in text
    assert "arguments of verl, as overrides here" in text and (tmp_path / "figures" / "training-logs.png").is_file()
    assert text.count("<script") == 1  # the one that sorts tables
    table = tidy(folder.parent)
    assert set(table["algorithm"]) == {"TRL", "LLaMA-Factory", "Axolotl", "verl"} and table["dataset"].isna().all()
    rewards = table.query("algorithm == 'verl' and metric == 'reward'")
    assert rewards[["step", "value"]].to_numpy().tolist() == [[1, 0.1], [4, 0.4]]
    with pytest.raises(ValueError, match=r"holds no metrics\.jsonl: give folders of runs; launchers\.adopt"):
        training.read_logs([str(tmp_path / "figures")])


def test_trl_and_llama_factory_leave_models_that_load(adopted):
    _, record, folder = adopted("TRL")
    assert "checkpoint-10" in record["model"]
    AutoModelForCausalLM.from_pretrained(folder / "model")
    (_, last) = read_metrics(folder / "metrics.jsonl")
    assert last["loss"] == 0.5 and last["eval_loss"] == 0.6  # of one step, logged twice
    _, record, folder = adopted("LLaMA-Factory")
    AutoModelForCausalLM.from_pretrained(folder / "model")
    first, last = read_metrics(folder / "metrics.jsonl")
    assert first["rewards/accuracies"] == 0.6 and first["learning_rate"] == 1e-5 and last["seconds"] == 65


def test_arguments_become_overrides_and_the_others_are_named(adopted, composed):
    expected = {
        "LLaMA-Factory": (["algorithm=dpo", "args.beta=0.2", "dataset.max_tokens=512", "model.lora_r=8"], ["template"]),
        "Axolotl": (["model.model_name_or_path=me/base", "algorithm=dpo", "args.beta=0.3"], ["flash_attention"]),
        "verl": (["algorithm=grpo", "args.num_generations=8", "completion_length=128"], ["data.train_batch_size"]),
        "OpenRLHF": (
            ["dataset.columns={chosen: good, rejected: bad}", "dataset=file", "algorithm=reward"],
            ["packing_samples"],
        ),
    }
    for name, (found, lacking) in expected.items():
        _, record, _ = adopted(name)
        assert set(found) <= set(record["overrides"])
        assert [each.partition("=")[0] for each in record["lacking"]] == lacking
        algorithm = next((each for each in record["overrides"] if each.startswith("algorithm=")), "algorithm=reward")
        composed("train", algorithm, *(f"++{each}" for each in record["overrides"] if "=" in each and "." in each[:8]))


def test_a_reward_model_of_openrlhf_gives_the_same_rewards(adopted):
    model, record, folder = adopted("OpenRLHF")
    loaded = AutoModelForSequenceClassification.from_pretrained(folder / "model")
    ids = torch.arange(2, 14).view(2, 6)
    for each in (model, loaded):
        each.config.pad_token_id = 0
    assert record["framework"] == "OpenRLHF" and loaded.config.num_labels == 1
    torch.testing.assert_close(loaded.eval()(ids).logits, model.eval()(ids).logits)


def test_shards_of_verl_need_verl(adopted):
    _, record, _ = adopted("verl")
    assert record["model"] is None and "python -m verl.model_merger merge --backend fsdp" in record["problem"]


def test_shards_of_deepspeed_are_converted(tiny, tmp_path):
    """deepspeed/utils/zero_to_fp32.py: what it reads of a ZeRO-2 checkpoint of one process."""
    run = tmp_path / "run"
    folder = run / "global_step3"
    folder.mkdir(parents=True)
    (run / "latest").write_text("global_step3")
    shutil.copy(tiny / "config.json", run)
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    named = dict(model.named_parameters())
    states = {"module": {}, "buffer_names": [], "shared_params": {}, "ds_version": "0.19.0"}
    states |= {"param_shapes": [{name: value.shape for name, value in named.items()}], "dp_world_size": 1}
    torch.save(states, folder / "mp_rank_00_model_states.pt")
    flat = torch.cat([value.detach().flatten() for value in named.values()])
    optimizer = {"zero_stage": 2, "partition_count": 1, "single_partition_of_fp32_groups": [flat]}
    torch.save({"optimizer_state_dict": optimizer}, folder / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    with pytest.raises(ValueError, match=r"run holds shards that are pickles, .* give trust=\[pickle\]"):
        adopt(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    record = adopt(run, tmp_path / "out", trusted=True)
    assert record["framework"] == "DeepSpeed" and record["problem"] is None
    loaded = dict(AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model").named_parameters())
    assert loaded.keys() == named.keys() and all(torch.equal(loaded[name], named[name]) for name in named)


class Runs:
    """A pickle that runs a command when it is loaded."""

    def __reduce__(self):
        return os.system, ("touch ran",)


def test_a_hostile_folder_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    (run / "global_step1").mkdir(parents=True)
    (run / "latest").write_text("global_step1")
    for path in (run / "global_step1" / "mp_rank_00_model_states.pt", run / "training_args.bin", run / "optimizer.pt"):
        path.write_bytes(pickle.dumps(Runs()))
    (run / "trainer_state.json").write_text('{"global_step": 1, "log_history": [{"step": 1, "loss": NaN}]}')
    (run / "training_args.yaml").write_text("!!python/object/apply:os.system ['touch ran']")
    (run / "run.sh").write_bytes(b"\xff\xfe touch ran")
    with pytest.raises(ValueError, match="pickles"):
        adopt(run, tmp_path / "out")
    (run / "global_step1" / "mp_rank_00_model_states.pt").unlink()
    adopt(run, tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def test_what_is_no_run_and_what_would_be_overwritten_is_refused(tiny, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no run of TRL, OpenRLHF, verl"):
        adopt(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(ValueError, match="no such folder"):
        adopt(tmp_path / "nowhere", tmp_path / "out")
    trl(tiny, tmp_path / "run")
    adopt(tmp_path / "run", tmp_path / "out")
    with pytest.raises(ValueError, match="is not empty"):
        adopt(tmp_path / "run", tmp_path / "out")
