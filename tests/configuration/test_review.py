"""Wrong configurations of every launcher, told in one sentence each and all at once, before anything is loaded."""

import json

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.configuration.mistakes import sentence
from rlhf_trl_ext.configuration.review import review


@pytest.fixture
def refusal_of(composed):
    """`refusal_of("train", "seed=-1")`: what a launcher answers to these overrides."""

    def answer(launcher, *overrides):
        try:
            review(composed(launcher, *overrides), launcher, list(overrides))
        except (ConfigError, HydraException, OmegaConfBaseException) as error:
            return sentence(error)
        return None

    return answer


NUMBERS = [
    ("algorithm=sft", "args.learning_rate=0", "above 0 and at most 1 is needed"),
    ("algorithm=sft", "args.learning_rate=true", "float is needed, and true and false are no numbers"),
    ("algorithm=sft", "args.learning_rate=inf", "a finite number is needed"),
    ("algorithm=kto", "args.beta=0.0", "above 0 is needed"),
    ("algorithm=grpo", "args.beta=-0.5", "at least 0 is needed"),
    ("algorithm=grpo", "args.epsilon=-0.1", "above 0 is needed"),
    ("algorithm=grpo", "args.top_p=1.5", "above 0 and at most 1 is needed"),
    ("algorithm=grpo", "args.reward_weights=[1.0,-1.0]", "at least 0 is needed"),
    ("algorithm=grpo", "args.scale_rewards=all", "allowed are True, group, batch"),
    ("algorithm=rloo", "args.num_iterations=0", "at least 1 is needed"),
    ("algorithm=ppo", "args.gamma=1.5", "0 to 1 is needed: Discount of a token"),
    ("algorithm=ppo", "args.lam=-1", "0 to 1 is needed"),
    ("algorithm=ppo", "args.critic_learning_rate=-1e-5", "above 0 and at most 1 is needed"),
    ("algorithm=grpo_vi", "args.vi_lambda=soon", "0 to 1 or auto is needed"),
    ("algorithm=dpo", "args.max_steps=0", "-1 or at least 1 is needed"),
    ("algorithm=dpo", "args.save_total_limit=0", "at least 1 is needed"),
    ("algorithm=dpo", "args.adam_beta2=1", "at least 0 and below 1 is needed"),
    ("algorithm=dpo", "args.label_smoothing=0.5", "at least 0 and below 0.5 is needed"),
    ("algorithm=dpo", "args.gradient_accumulation_steps=0", "at least 1 is needed"),
]


@pytest.mark.parametrize(("algorithm", "override", "expected"), NUMBERS)
def test_a_number_outside_its_meaning_is_told_with_its_range(algorithm, override, expected, refusal_of):
    key = override.partition("=")[0]
    answer = refusal_of("train", algorithm, "reward=gold", f"++{override}")
    assert answer.startswith(f"{key}=") and expected in answer and "\n" not in answer


OTHERS = [
    ("train", "overwrite=off", "overwrite=off: true or false is needed"),
    ("train", "evaluate=perhaps", "evaluate=perhaps: true or false is needed"),
    ("train", "step_timeout=-1", "step_timeout=-1: above 0 is needed (or null)"),
    ("train", "num_processes=1.5", "num_processes=1.5: a whole number is needed"),
    ("train", "output_dir=/proc/here", "nothing can be written to /proc"),
    (
        "train",
        "output_root='~/runs'",
        "output_root=~/runs: the shell expands ~ only at the beginning of a word; give /",
    ),
    ("train", "algorithm=dpo held_out=gold", "held_out=gold: algorithm=dpo has no use for it, as nothing is sampled"),
    ("train", "++args.output_dir=x", "args.output_dir=x: a run's folder is given by output_dir=<folder>"),
    ("train", "++args.resume_from_checkpoint=x", "a run goes on by itself from the last whole checkpoint"),
    ("train", "model.model_name_or_path=''", "model_name_or_path is empty"),
    ("train", "model.model_name_or_path=/no/such", "model.model_name_or_path=/no/such: no such folder"),
    ("train", "++model.chat_template=/no/such", "model.chat_template=/no/such: no such file"),
    ("train", "++model.chat_template=/dev/null", "model.chat_template=/dev/null: no such file"),
    ("train", "++callbacks.mine=3", "callbacks={mine: 3}: names and values are needed"),
    ("train", "++callbacks.mine._target_=rlhf_trl_ext.callbacks.nothing.Here", "no such class or function"),
    ("train", "dataset=hh dataset.path=/dev/zero", "path=/dev/zero is no data file"),
    ("train", "dataset=hh dataset.path=. dataset.hub_split=test", "local files have neither"),
    ("pipeline", "policies=[]", "policies=[]: at least one is needed"),
    ("pipeline", "policies=dpo", "policies=dpo: a list is needed, [a,b]"),
    ("pipeline", "policies=[dpo,dpo]", "every one is named once"),
    ("pipeline", "policies=[sft]", "policies=[sft] is the baseline"),
    ("pipeline", "baseline=null", "baseline=null: a word is needed"),
    ("pipeline", "jobs=0", "jobs=0: at least 1 is needed (or null)"),
    ("pipeline", "samples.temperature=-1", "samples.temperature=-1: at least 0 is needed"),
    ("generate", "policy=a samples.batch_size=0", "samples.batch_size=0: "),
    ("generate", "policy=/no/such", "policy=/no/such: no such folder"),
    ("generate", "policy=null", "policy=null: "),
    ("label", "pairs.completions=0", "pairs.completions=0: "),
    ("label", "++pairs.max_pair=3", "pairs.max_pair=3: no such key; did you mean pairs.max_pairs"),
    ("label", "pairs.split=test", "pairs.split=test: allowed are 'train' or 'evaluation'"),
    ("plan", "num_gpus=0", "num_gpus=0: "),
    ("plan", "plan.reserved=-1", "plan.reserved=-1: "),
    ("plan", "++args.per_device_train_batch_size=0", "args.per_device_train_batch_size=0: at least 1"),
    ("evaluate", "baseline=a policies=b", "policies=b: names and values are needed"),
    ("evaluate", "baseline=a pairs=some", "pairs=some: "),
    ("benchmark", "seeds=[a]", "seeds=[a]: a whole number is needed"),
    ("benchmark", "budget.sampled_tokens=many", "budget.sampled_tokens=many: "),
    ("data", "rows=-1", "rows=-1: at least 0 is needed"),
    ("data", "view=all", "view=all: allowed are 'demonstrations', 'preferences', 'prompts' or 'unpaired'"),
    ("dashboard", "port=70000", "port=70000: "),
    ("capability", "baseline=/a policies={b: /b} include_path=tasks", "give trust_tasks=true on the command line"),
    ("report", "folder=x output=/tmp", "output=/tmp: it is a folder, and a file is needed"),
    ("report", "folder=x pdf=perhaps", "pdf=perhaps: "),
    ("answer", "policy=/no/such output=x", "policy=/no/such: no such folder"),
    ("answer", "policy=a output=x ++questions=3", "questions=3: a word is needed (or null)"),
    ("adopt", "folder=3", "folder=3: a word is needed"),
    ("train", "++trust=3", "trust=3: a list is needed"),
    ("train", "++name=a/../b", "name=a/../b: it names a folder; letters, digits, . - and _"),
    ("train", "++view=rows", "view=rows: allowed are 'demonstrations', 'preferences'"),
    (
        "train",
        "++model.lora_r=8",
        "model.lora_r=8: model.use_peft is false, so there is no adapter; give model.use_peft",
    ),
    ("train", "++model.build=3", "model.build=3: {_target_: <function>, _partial_: true} is needed"),
    ("train", "++model.model_revision=v2", "model.model_revision=v2: a model that is built has no revisions"),
    ("train", "++args.deepspeed=/tmp", "args.deepspeed=/tmp: no such file; give one in JSON, or deepspeed="),
    ("train", "++args.max_steps=4.0", "args.max_steps=4.0: int is needed, a whole number"),
    ("train", "algorithm=grpo reward=objectives", "reward.functions[0]=null: give a reward model"),
    ("generate", "policy=a reward.path=null", "reward.functions[0]=null: give a reward model"),
    ("plan", "++args.deepspeed=/no.json", "args.deepspeed=/no.json: no such file"),
    ("benchmark", "algorithms=[sft,dpo]", "algorithms: sft is the baseline that all are compared with; leave it out"),
    ("benchmark", "samples.max_prompts=1", "samples.max_prompts=1: at least 2 is needed (or null)"),
    ("pipeline", "samples.max_prompts=1", "samples.max_prompts=1: at least 2 is needed (or null)"),
    ("benchmark", "++settings.hh=3", "settings={hh: 3}: names and values are needed"),
    ("landscapes", "policy.width=3", "policy.width=3: a multiple of 2 is needed"),
    ("evaluate", "results=x/results.json baseline=a", "baseline and results are both given: give one of them"),
    ("benchmark", "threshold=soon", "threshold=soon: a number is allowed, or dpo, ppo"),
    ("train", "dataset.seed=-1", "dataset.seed=-1: int is needed (input should be greater than or equal to 0)"),
    ("train", "++model.model_name_or_path=true", "model.model_name_or_path=true: str | None is needed"),
    ("generate", "++policy=/no/such", "policy=/no/such: no such folder"),
    ("plan", "++plan=3", "plan=3: names and values are needed"),
    ("generate", "policy=a ++samples=null", "samples=null: names and values are needed"),
    ("generate", "policy=a ++args.use_cpu=3", "args.use_cpu=3: true or false is needed"),
    ("generate", "policy=a ++args.temperature=1", "launchers.generate trains nothing, only args.use_cpu is read"),
    ("generate", "policy=a step_timeout=9", "step_timeout=9: launchers.generate reads no step_timeout; leave it out"),
    ("label", "++pairs=null", "pairs=null: names and values are needed"),
    ("label", "++monitor.action=stop", "monitor.action=stop: launchers.label reads no monitor; leave it out"),
    ("data", "output_dir=x", "output_dir=x: launchers.data reads no output_dir; leave it out"),
    ("chat", "policy=a ++args.max_steps=3", "args.max_steps=3: launchers.chat trains nothing; leave it out"),
    ("landscapes", "seed=3", "seed=3: launchers.landscapes reads no seed; leave it out"),
    ("landscapes", "task.actions=1", "task.actions=1: at least 2 is needed"),
    ("landscapes", "++settings.ppo=3", "settings.ppo=3: names and values are needed"),
    ("landscapes", "tasks.noisy.noise=-1", "tasks.noisy.noise=-1: float is needed"),
    ("capability", "baseline=/a limit=1.5", "limit=1.5: "),
]


@pytest.mark.parametrize(("launcher", "overrides", "expected"), OTHERS)
def test_every_launcher_answers_its_own_settings(launcher, overrides, expected, refusal_of):
    words = overrides.split(" ") if "{" not in overrides else ["baseline=/a", "policies={b: /b}", "include_path=tasks"]
    assert expected in refusal_of(launcher, *words)


@pytest.mark.parametrize("launcher", ["evaluate", "capability"])
def test_no_policy_takes_the_name_of_the_baseline(launcher, refusal_of):
    answer = refusal_of(launcher, "baseline=a", "policies={baseline: b, c: d}")
    assert "policies={baseline: b, c: d}: this name is the baseline's own" in answer


def test_shares_are_checked_where_no_data_set_reads_them(refusal_of):
    assert "they sum to 0.5, and shares sum to 1" in refusal_of("train", "dataset=embedded", "shares={sft: 0.5}")
    assert "shares={sft: -1}: at least 0 is needed" in refusal_of("train", "dataset=embedded", "shares={sft: -1}")


def test_settings_of_an_experiment_for_another_choice_are_not_called_the_users(refusal_of):
    # smoke sets four sizes of dataset=embedded; dataset.shuffle is the user's own
    answer = refusal_of("pipeline", "experiment=smoke", "dataset=file", "dataset.path=rows.csv", "+dataset.shuffle=1")
    own, experiments = answer.splitlines()[1:]
    assert own.startswith("  1. dataset.shuffle=1: Corpus has no such argument;")
    assert (
        "dataset=file does not go with experiment=smoke, which sets dataset.demonstrations, dataset.preferences, "
        in (experiments)
    )
    assert "dataset.prompts, dataset.evaluation: Corpus has no such arguments; leave dataset=file out" in experiments


def test_all_mistakes_are_told_at_once_and_each_once(refusal_of):
    answer = refusal_of("train", "algorithm=dpo", "seed=-1", "overwrite=no", "++args.beta=-1", "++args.lerning_rate=1")
    lines = answer.splitlines()
    assert lines[0] == "4 mistakes:" and len(lines) == 5, answer
    for line, start in zip(lines[1:], ("seed=-1", "overwrite=no", "args.beta=-1", "args.lerning_rate=1"), strict=True):
        assert start in line


def test_what_the_project_composes_passes(refusal_of, tmp_path):
    assert refusal_of("train", "algorithm=ppo", "reward=gold", f"output_root={tmp_path}") is None
    assert refusal_of("pipeline", "experiment=rlaif", f"output_root={tmp_path}") is None
    for launcher in ("benchmark", "landscapes", "plan", "dashboard", "label", "revise"):
        assert refusal_of(launcher, f"output_root={tmp_path}") is None, launcher


HARMFUL = [
    "os.system",
    "builtins.eval",
    "torch.load",
    "pandas.read_pickle",
    "torch.hub.load",
    "rlhf_trl_ext.configuration.mistakes.os.system",
    "rlhf_trl_ext.models.loading.load_tokenizer",
    "datasets.load_dataset",
    "transformers.pipeline",
    "trl.trainer.utils.os.system",
    "rlhf_trl_ext.files.write",
    "rlhf_trl_ext.models.saving.save",
    "rlhf_trl_ext.data.corpus.Corpus.load",
    "rlhf_trl_ext.callbacks.records.MetricsRecorder",
    "rlhf_trl_ext.stages.train.train",
    "evaluation.files.write_json",
    "evaluation.api.Pipeline",
]


def test_targets_that_are_not_trusted_are_not_built(refusal_of):
    callbacks = [f"++callbacks.a{number}._target_={target}" for number, target in enumerate(HARMFUL)]
    functions = ",".join(f"{{_target_: {target}}}" for target in HARMFUL)
    answer = refusal_of("train", "algorithm=grpo", *callbacks, f"reward.functions=[{functions}]")
    for number, target in enumerate(HARMFUL):
        for where in (f"callbacks.a{number}.", f"reward.functions[{number}]."):
            (line,) = (line for line in answer.splitlines() if f" {where}_target_={target}: " in line)
            assert "give trust=[" in line
    by_name = ",".join("{_target_: hydra.utils.get_method, path: " + target + "}" for target in HARMFUL)
    answer = refusal_of("train", "algorithm=grpo", f"reward.functions=[{by_name}]")
    for number in range(len(HARMFUL)):
        (line,) = (line for line in answer.splitlines() if f" reward.functions[{number}]." in line)
        assert "give trust=[" in line


def test_trust_is_given_by_the_command_line_alone(composed, refusal_of):
    mine = ["algorithm=grpo", "reward.functions=[{_target_: conftest.DistinctCharacters}]", "reward.path=null"]
    assert "give trust=[conftest]" in refusal_of("train", *mine)
    assert refusal_of("train", *mine, "trust=[conftest]") is None
    config = composed("train", *mine)
    config.trust = ["conftest"]
    with pytest.raises(ConfigError, match="trust=\\[conftest\\] stands in a file"):
        review(config, "train", mine)


def test_configs_and_callbacks_of_the_libraries_need_no_word(refusal_of):
    plain = [
        "algorithm=dpo",
        "trainer._target_=trl.DPOTrainer",
        "++callbacks.a._target_=transformers.EarlyStoppingCallback",
    ]
    assert refusal_of("train", *plain) is None
    assert (
        refusal_of(
            "train", "algorithm=grpo", "reward.functions=[{_target_: trl.rewards.think_format_reward, _partial_: true}]"
        )
        is None
    )


@pytest.mark.parametrize(
    "override", ["args.model_init_kwargs={trust_remote_code: true}", "model.attn_implementation=org/kernel"]
)
def test_code_of_the_hub_needs_a_word(override, refusal_of):
    assert "give trust=[remote_code]" in refusal_of("train", f"++{override}")
    assert refusal_of("train", f"++{override}", "trust=[remote_code]") is None


KEY = "hf_" + "q7" * 12
SECRETS = [
    f"++args.hub_token={KEY}",
    f"++args.run_name={KEY}",
    "++args.hub_token=${oc.env:MY_SECRET_TOKEN}",
    "++args.run_name=${oc.env:PLAIN_NAME}",
    "++args.run_name=abcd-efgh-ijkl-mnop",
    "++args.hub_model_id=https://me:pass1234@host/x",
]


@pytest.mark.parametrize("override", SECRETS)
def test_a_key_is_refused_and_not_repeated(override, refusal_of, monkeypatch):
    monkeypatch.setenv("MY_SECRET_TOKEN", "abcd-efgh-ijkl-mnop")
    monkeypatch.setenv("PLAIN_NAME", "abcd-efgh-ijkl-mnop")
    answer = refusal_of("train", override)
    assert ("files" in answer and "environment" in answer) or "export it" in answer
    assert not any(secret in answer for secret in (KEY, "abcd-efgh", "pass1234"))


def test_a_key_in_place_of_its_variable_is_refused(composed):
    config = OmegaConf.merge(composed("train"), {"judge": {"client": {"key_variable": "0123abcd0123abcd0123"}}})
    with pytest.raises(ConfigError, match=r"judge\.client\.key_variable: the name of an env") as caught:
        review(config, "train", [])
    assert "0123abcd" not in str(caught.value)


def model_folder(folder, **files):
    folder.mkdir()
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(json.dumps(content))
    return folder


def test_a_folder_that_is_no_model_says_what_it_lacks(refusal_of, tmp_path):
    causal = {"architectures": ["LlamaForCausalLM"]}
    whole = {"model__safetensors": {}, "tokenizer__json": {}}
    cases = {
        "empty": ({}, "holds no config.json"),
        "adapter": ({"adapter_config__json": {}}, "names no base_model_name_or_path"),
        "weightless": ({"config__json": causal}, "holds no weights"),
        "wordless": ({"config__json": causal, "model__safetensors": {}}, "holds no tokenizer"),
    }
    for name, (files, expected) in cases.items():
        folder = model_folder(tmp_path / name, **files)
        assert expected in refusal_of("train", f"model.model_name_or_path={folder}")
        assert expected in refusal_of("generate", f"policy={folder}", "reward=gold")
    policy = model_folder(tmp_path / "policy", config__json=causal, **whole)
    assert refusal_of("train", f"model.model_name_or_path={policy}") is None
    for launcher in (["train", "algorithm=grpo"], ["generate", f"policy={policy}"]):
        assert f"reward.path={policy}: it is a LlamaForCausalLM" in refusal_of(*launcher, f"reward.path={policy}")
        assert "reward.path=/no/such: no such folder" in refusal_of(*launcher, "reward.path=/no/such")


@pytest.mark.parametrize(
    ("launcher", "overrides", "key"),
    [
        ("train", ["algorithm=grpo", "reward.path={}"], "reward.path"),
        ("train", ["algorithm=ppo", "reward=gold", "args.critic_path={}"], "args.critic_path"),
        ("train", ["algorithm=grpo", "reward=ensemble", "reward.functions.0.members=[{}]"], "members[0]"),
        ("label", ["judge=reward_model", "judge.path={}"], "judge.path"),
        ("evaluate", ["judge=reward_model", "judge.path={}", "results=r.json"], "judge.path"),
        ("pipeline", ["judge=reward_model", "judge.path={}"], "judge.path"),
        ("generate", ["reward.path={}", "policy={}"], "reward.path"),
    ],
)
def test_a_language_model_is_no_reward_anywhere(launcher, overrides, key, tiny, refusal_of):
    answer = refusal_of(launcher, *(override.format(tiny) for override in overrides))
    assert f"{key}={tiny}: it is a LlamaForCausalLM, which has no trained score; give a reward model" in answer


def test_adapters_and_missing_models_of_judges(tmp_path, refusal_of):
    assert "judge.model=/no/such: no such folder" in refusal_of("label", "judge=local", "judge.model=/no/such")
    assert "judge.path=/no/such: no such folder" in refusal_of("label", "judge=reward_model", "judge.path=/no/such")
