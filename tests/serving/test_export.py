"""Exports are run: equal in float32, refused in a sentence where they cannot be or are not what was built."""

import json

import numpy as np
import pytest
import torch
from command_lines import in_process

from rlhf_trl_ext.models.pretrained import load_tokenizer
from rlhf_trl_ext.serving.export import export, is_reward_model, refusal
from rlhf_trl_ext.serving.verification import _common, verify

PROMPTS = [{"prompt": [{"role": "user", "content": f"Where is my umbrella, number {n}?"}]} for n in range(4)]


@pytest.fixture(scope="module")
def traced(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports") / "tiny"
    export(str(tiny), "torchscript", "fp32", load_tokenizer(str(tiny)), folder)
    return folder


def test_an_export_in_float32_says_what_transformers_says(tiny, traced):
    record = verify(str(tiny), traced, "torchscript", "fp32", load_tokenizer(str(tiny)), PROMPTS, 8)
    assert record["same"] and record["equal_prompts"] == 4 and record["tokens"] >= 4
    assert record["perplexity"][0] == pytest.approx(record["perplexity"][1], rel=1e-4)
    assert record["megabytes"] > 1 and set(record["files"]) >= {"model.ts", "tokenizer.json", "config.json"}


def test_an_export_of_other_weights_is_told_by_running(tiny, traced, tmp_path):
    from rlhf_trl_ext.models.tiny import build_tiny

    build_tiny(tmp_path / "other", seed=1)
    record = verify(str(tmp_path / "other"), traced, "torchscript", "fp32", load_tokenizer(str(tiny)), PROMPTS, 8)
    assert not record["same"]


def test_one_that_changed_after_it_was_verified_is_refused(tiny, tmp_path):
    export(str(tiny), "torchscript", "fp32", load_tokenizer(str(tiny)), tmp_path / "e")
    record = verify(str(tiny), tmp_path / "e", "torchscript", "fp32", load_tokenizer(str(tiny)), PROMPTS, 2)
    (tmp_path / "e" / "export.json").write_text(json.dumps(record))
    with (tmp_path / "e" / "model.ts").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match="changed after the build; build it again"):
        verify(str(tiny), tmp_path / "e", "torchscript", "fp32", load_tokenizer(str(tiny)), PROMPTS, 2)


class Logits:
    def logits(self, ids):
        return np.array([[0.0, 1.0, 0.9995, 0.2]])


def test_a_tie_is_no_difference_and_everything_else_is():
    assert _common(Logits(), [7], [1, 1, 1], [1, 2, 3]) == 3  # 1.0 and 0.9995
    assert _common(Logits(), [7], [1, 1, 1], [1, 3, 1]) == 1
    assert _common(Logits(), [7], [1, 1], [1]) == 1


def test_what_cannot_be_exported_is_refused_in_a_sentence(tiny, tmp_path):
    assert not is_reward_model(str(tiny))
    for told, (format, precision) in {
        "precision=int4 with format=torch: allowed are fp32, fp16.": ("torch", "int4"),
        "format=tensorrt: it needs onnxruntime-gpu with TensorRT and a GPU": ("tensorrt", "fp32"),
    }.items():
        pytest.importorskip("onnxruntime_genai", reason="pip install 'rlhf-trl-ext[export]'")
        assert told in refusal(str(tiny), format, precision)
    config = json.loads((tiny / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"head_dim": 8}))
    assert "the head size 8 of" in refusal(str(tmp_path), "onnx", "fp32")
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForSequenceClassification"]}))
    assert "give format=onnx-model for a reward model" in refusal(str(tmp_path), "onnx", "fp32")


def test_adapters_are_merged_and_a_template_of_ones_own_is_kept(tiny, tmp_path):
    """`launchers.export` of a folder that holds LoRA weights alone, with a chat template given by the user."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny), lora).save_pretrained(tmp_path / "adapter")
    own = tmp_path / "own.jinja"
    own.write_text("{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}{% endfor %}")
    words = [f"policy={tmp_path}/adapter", f"model.chat_template={own}", "format=torchscript", f"output={tmp_path}/e"]
    words += ["prompts=2", "max_new_tokens=3", f"output_root={tmp_path}"]
    assert in_process("launchers.export", *words).returncode == 0
    record = json.loads((tmp_path / "e" / "export.json").read_text())
    assert record["same"] and record["policy"] == f"{tmp_path}/adapter"
    chat = [{"role": "user", "content": "Hi"}]
    assert load_tokenizer(str(tmp_path / "e")).apply_chat_template(chat, tokenize=False) == "<user>Hi"


def launched(*words):
    return in_process("launchers.export", "prompts=8", "max_new_tokens=8", *words)


def check_served(folder, tiny):
    """What the export generates behind OpenAI's routes is what transformers generates."""
    import openai
    from serving.conftest import serving
    from transformers import AutoTokenizer

    from rlhf_trl_ext.serving.onnx_engine import OnnxEngine, application
    from rlhf_trl_ext.serving.verification import Original

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    ids = tokenizer.apply_chat_template(PROMPTS[0]["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
    expected = tokenizer.decode(Original(str(tiny)).greedy(ids, 6, {tokenizer.eos_token_id}), skip_special_tokens=True)
    asked = {"model": "x", "messages": PROMPTS[0]["prompt"], "max_tokens": 6}
    with serving(application(OnnxEngine(folder, 1))) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
        whole = client.chat.completions.create(**asked)
        pieces = client.chat.completions.create(stream=True, **asked)
        streamed = "".join(piece.choices[0].delta.content or "" for piece in pieces)
        with pytest.raises(openai.BadRequestError, match="logprobs: not known to this engine"):
            client.chat.completions.create(logprobs=True, **asked)
    assert whole.choices[0].message.content == expected and whole.usage.prompt_tokens == len(ids)
    assert streamed == expected.rstrip("\ufffd")
    (folder / "model.onnx").write_bytes(b"changed")
    with pytest.raises(ValueError, match="has changed since it was verified"):
        OnnxEngine(folder, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "precision"), [("onnx", "fp32"), ("onnx", "fp16"), ("onnx-model", "fp32"), ("torch", "fp32")]
)
def test_every_format_is_built_and_verified_by_the_launcher(format, precision, tiny, tmp_path):
    pytest.importorskip("onnxruntime_genai", reason="pip install 'rlhf-trl-ext[export]'")
    done = launched(f"policy={tiny}", f"format={format}", f"precision={precision}", f"output={tmp_path}/e")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "equal on 8 of 8 prompts" in done.stdout
    if (format, precision) == ("onnx", "fp32"):
        check_served(tmp_path / "e", tiny)
        again = launched(f"policy={tiny}", f"format={format}", f"output={tmp_path}/e")
        assert again.returncode == 1 and "exists: give overwrite=true" in again.stderr


@pytest.mark.slow
def test_gpt2_and_weights_of_another_policy_end_with_a_sentence(tiny, tmp_path):
    pytest.importorskip("onnxruntime_genai", reason="pip install 'rlhf-trl-ext[export]'")
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path / "gpt2")
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 600}
    GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(tmp_path / "gpt2")
    done = launched(f"policy={tmp_path}/gpt2", f"output={tmp_path}/e")
    assert done.returncode == 1 and "onnxruntime-genai cannot build policy" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "e").exists()
    from rlhf_trl_ext.models.tiny import build_tiny

    build_tiny(tmp_path / "other", seed=1)
    export(str(tiny), "torchscript", "fp32", load_tokenizer(str(tiny)), tmp_path / "t")
    done = launched(f"policy={tmp_path}/other", f"output={tmp_path}/t", "format=torchscript", "build=false")
    assert done.returncode == 1 and "in fp32, so it is no export of it" in done.stderr
