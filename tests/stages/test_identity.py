"""What makes a stage another one: settings, files by content, code by source; by the declaration of its kind."""

import json
import os
import sys

import pytest
from omegaconf import OmegaConf

from rlhf_trl_ext.judging import prompt as prompts
from rlhf_trl_ext.stages import files, kinds
from rlhf_trl_ext.stages.identity import digest, fingerprint, identify


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory and the home, both empty, and a folder on sys.path."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def trained(**changes):
    return fingerprint(OmegaConf.create({"kind": "train", "name": "sft", "args": {}, **changes}))


@pytest.mark.parametrize("path", ["mine.jsonl", "./mine.jsonl", "~/mine.jsonl", "linked/mine.jsonl", "linked"])
def test_data_decide_by_content_however_their_path_is_written(path, here):
    (here / "real").mkdir()
    (here / "linked").symlink_to("real")
    for place in (here, here / "real", here / "home"):
        (place / "mine.jsonl").write_text('{"a": 1}\n')
    before = trained(dataset={"path": path})
    for place in (here, here / "real", here / "home"):
        (place / "mine.jsonl").write_text('{"a": 2}\n')
    assert trained(dataset={"path": path}) != before


def test_where_data_lie_does_not_decide(here):
    (here / "a").mkdir()
    (here / "a" / "mine.jsonl").write_text("1")
    (here / "mine.jsonl").symlink_to("a/mine.jsonl")
    spellings = ["mine.jsonl", "a/mine.jsonl", str(here / "a" / "mine.jsonl"), f"{here}/a/../a/mine.jsonl"]
    assert len({trained(dataset={"path": path}) for path in spellings}) == 1


def test_a_folder_decides_by_all_that_lies_below_also_behind_links(here):
    (here / "far").mkdir()
    (here / "far" / "rows.jsonl").write_text("1")
    (here / "data").mkdir()
    (here / "data" / "train").symlink_to(here / "far")
    (here / "far" / "back").symlink_to(here / "data")  # a circle ends
    before = digest({"path": "data"})
    (here / "far" / "rows.jsonl").write_text("2")
    assert digest({"path": "data"}) != before


def test_a_moved_stage_is_the_same_input(here):
    for place in ("one", "two"):
        (here / place).mkdir()
        (here / place / "stage.json").write_text('{"fingerprint": "aa"}')
    assert trained(model={"model_name_or_path": "one"}) == trained(model={"model_name_or_path": "two"})


def test_a_large_file_edited_in_place_is_another(here, monkeypatch):
    monkeypatch.setattr(files, "LARGE", 3)
    monkeypatch.setattr(files, "SETTLED", -1)  # digests are kept at once
    (here / "big").write_text("first")
    times = os.stat("big")
    first = files.digest(here / "big")
    (kept,) = (here / "home/.cache/rlhf_trl_ext/sha256").iterdir()
    kept.write_text("0" * 64)
    assert files.digest(here / "big") == "0" * 64  # from the cache
    (here / "big").write_text("other")
    os.utime("big", ns=(times.st_atime_ns, times.st_mtime_ns))  # the same size, and times set back
    assert files.digest(here / "big") not in (first, "0" * 64)


def labelled(**judge):
    config = {
        "kind": "label",
        "name": "labels",
        "judge": {"_target_": "rlhf_trl_ext.judging.endpoint.EndpointJudge"},
    }
    return fingerprint(OmegaConf.merge(config, {"judge": judge}))


def test_a_judge_prompt_decides_by_content_named_or_by_default_or_by_path(here, monkeypatch):
    folder = here / "prompts"
    folder.mkdir()
    for place in (folder / "helpfulness.yaml", folder / "tldr.yaml", here / "own.yaml"):
        place.write_text("instructions: one")
    monkeypatch.setitem(kinds.NAMED_FILES, "prompt", (folder, ".yaml"))
    asked = ({}, {"prompt": "helpfulness"}, {"prompt": "own.yaml"}, {"prompt": "tldr"})
    before = [labelled(**judge) for judge in asked]
    for place in (folder / "helpfulness.yaml", here / "own.yaml"):
        place.write_text("instructions: two")
    changed = [a != b for a, b in zip(before, (labelled(**judge) for judge in asked), strict=True)]
    assert changed == [True, True, True, False]


def test_names_of_files_are_where_the_readers_look():
    assert kinds.NAMED_FILES["prompt"][0] == prompts.PROMPTS
    for folder, suffix in kinds.NAMED_FILES.values():
        assert list(folder.glob(f"*{suffix}"))


def test_a_constitution_a_rubric_and_a_chat_template_decide(composed):
    content = [
        identify(composed("label", f"judge={choice}", "++model.chat_template=plain")).content
        for choice in ("constitution", "rubric")
    ]
    assert {"judge.constitution", "judge.prompt", "model.chat_template"} <= content[0].keys()
    assert content[1]["judge.rubric"][0] == "ultrafeedback.yaml"


@pytest.mark.parametrize(
    "settings",
    [
        {"trainer": {"reward_funcs": [{"_target_": "mine.score.reward", "_partial_": True}]}},
        {"trainer": {"reward_funcs": ["mine.score.reward"]}},
        {"callbacks": {"watch": {"_target_": "mine.score.Watch"}}},
        {"dataset": {"convert": "mine.score.convert"}},
    ],
)
def test_the_users_own_code_decides_with_what_it_imports_from_beside_it(settings, here):
    package = here / "mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "words.py").write_text("GOOD = 1")
    (package / "score.py").write_text("import json, torch\nfrom . import words\n")
    (here / "unrelated.py").write_text("")
    before = trained(**settings)
    (here / "unrelated.py").write_text("x = 1")
    assert trained(**settings) == before
    (package / "words.py").write_text("GOOD = 22")
    second = trained(**settings)
    (package / "score.py").write_text("import json, torch\nfrom . import words\nx = 1\n")
    assert len({before, second, trained(**settings)}) == 3
    assert "mine" not in sys.modules  # nothing was run


def test_labels_depend_on_no_report_and_on_no_trainer(composed):
    code = identify(composed("label", "judge=openai")).code
    assert "rlhf_trl_ext.judging.endpoint" in code and "rlhf_trl_ext.stages.pairs" in code
    assert not [name for name in code if name.startswith(("evaluation", "launchers")) or "report" in name]
    assert not [name for name in code if ".trainers" in name or ".callbacks" in name or ".memory" in name]


def test_the_kind_is_stated_and_not_guessed_from_a_name_or_a_key(composed):
    config = composed("train", "algorithm=dpo")
    same = [fingerprint(OmegaConf.merge(config, extra)) for extra in ({}, {"policy": "x", "pairs": {}, "judge": {}})]
    assert same[0] == same[1]  # keys of other kinds decide nothing here
    named = identify(OmegaConf.merge(config, {"name": "labels"}))
    assert "rlhf_trl_ext.stages.train" in named.code and named.settings["trainer"]


def test_only_a_judge_is_asked_at_any_speed():
    mine = [trained(trainer={"reward": {"_target_": "mine.Reward", "timeout": seconds}}) for seconds in (1, 2)]
    assert mine[0] != mine[1]


def test_the_base_of_an_adapter_decides_as_well(tmp_path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir(), adapter.mkdir()
    (base / "config.json").write_text("{}")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "../base"}))
    before = digest({"policy": str(adapter)})
    assert digest({"policy": str(adapter)}) == before
    (base / "model.safetensors").write_text("trained further")
    assert digest({"policy": str(adapter)}) != before
