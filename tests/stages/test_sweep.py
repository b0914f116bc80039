"""What ranks the jobs of a sweep, and the table at the end."""

import json
import math
from types import SimpleNamespace

import pytest
from hydra.types import RunMode

from rlhf_trl_ext.configuration.checks import ConfigError
from rlhf_trl_ext.stages import sweep


def stage(loss, folder):
    return {"steps": 4, "train_seconds": 2.0, "metrics": {"eval_loss": loss}, "folder": str(folder)}


def pipeline(folder, **policies):
    rows = {name: {"win_rate": rate, "length_controlled_win_rate": controlled, "gold_reward_mean": 0.1, "kl_mean": 2.0}
            for name, (rate, controlled) in policies.items()}  # fmt: skip
    return {"folder": folder, "policies": rows}


PIPELINES = [
    (["beta=0.1", "seed=0"], pipeline("out/a", dpo=(0.6, 0.5), grpo=(0.7, None))),
    (["beta=0.2", "seed=0"], pipeline("out/b", dpo=(0.8, 0.4), grpo=(0.55, 0.6))),
]


def cells(table, header):
    return list(next(column.cells for column in table.columns if column.header == header))


@pytest.fixture
def in_sweep(monkeypatch):
    """Hydra's settings of a job of a sweep with the task overrides that are put into the list."""
    overrides = []
    settings = SimpleNamespace(mode=RunMode.MULTIRUN, overrides=SimpleNamespace(task=overrides))
    monkeypatch.setattr(sweep.HydraConfig, "get", lambda: settings)
    monkeypatch.setattr(sweep.HydraConfig, "initialized", lambda: True)
    return overrides


def test_a_row_a_job_without_a_metric(tmp_path):
    jobs = [(["algorithm=dpo", f"seed={seed}"], stage(seed + 1, f"out/{seed}")) for seed in (0, 1)]
    table = sweep.table(jobs)
    assert [column.header for column in table.columns] == ["job", "steps", "train seconds", "loss", "folder"]
    assert cells(table, "job") == ["seed=0", "seed=1"] and cells(table, "folder") == ["out/0", "out/1"]


def test_stages_are_ranked_by_what_they_measured_or_logged(tmp_path):
    for seed, reward in ((0, 0.25), (1, 0.5)):
        (tmp_path / str(seed)).mkdir()
        (tmp_path / str(seed) / "metrics.jsonl").write_text(json.dumps({"step": 4, "reward": reward}) + "\n")
    jobs = [([f"seed={seed}"], stage(seed + 1, tmp_path / str(seed))) for seed in (1, 0)]
    assert cells(sweep.table(jobs, "eval_loss"), "job") == ["seed=0", "seed=1"]  # less is better
    assert cells(sweep.table(jobs, "metrics.eval_loss", maximize=True), "job") == ["seed=1", "seed=0"]
    assert cells(sweep.table(jobs, "loss"), "loss") == ["1", "2"]
    assert cells(sweep.table(jobs, "reward"), "reward") == ["0.5", "0.25"]
    assert sweep.best(jobs[0][1], "reward") == (0.5, "") and math.isnan(sweep.best(jobs[0][1], "nothing")[0])
    assert "no job recorded it" in sweep.table(jobs, "nothing").caption


def test_a_number_goes_by_its_own_name_before_what_the_name_is_short_for():
    jobs = [([f"seed={seed}"], {"folder": "out", "metrics": {"gold": seed / 4}}) for seed in (1, 2)]
    table = sweep.table(jobs, "metrics.gold")
    assert cells(table, "job") == ["seed=2", "seed=1"] and cells(table, "gold") == ["0.5", "0.25"]
    assert table.caption is None and sweep.best(jobs[1][1], "gold")[0] == 0.5


def test_policies_of_pipelines_are_ranked_by_any_downstream_metric():
    table = sweep.table(PIPELINES, "win_rate")
    ranked = list(zip(cells(table, "job"), cells(table, "policy"), strict=True))
    assert ranked == [("beta=0.2", "dpo"), ("beta=0.1", "grpo"), ("beta=0.1", "dpo"), ("beta=0.2", "grpo")]
    table = sweep.table(PIPELINES, "length_controlled")
    assert cells(table, "length controlled win rate") == ["0.6", "0.5", "0.4", ""]  # without one: last
    assert sweep.best(PIPELINES[1][1], "length_controlled") == (0.6, "grpo")
    assert sweep.best(PIPELINES[0][1], "gold")[0] == 0.1
    assert not sweep.more_is_better("kl", None) and sweep.more_is_better("gold", None)


def test_an_optimising_sweeper_gets_the_best_of_a_job(in_sweep, monkeypatch, tmp_path):
    jobs = []
    config = {"sweep": {"metric": "win_rate", "maximize": None}}
    in_sweep += ["beta=0.1"]
    assert sweep.keep(jobs, config, PIPELINES[0][1]) == 0.7 and jobs == [(["beta=0.1"], PIPELINES[0][1])]
    monkeypatch.setenv(sweep.RECORD, str(tmp_path / "record.json"))  # a process of hydra/launcher=accelerate
    assert sweep.keep(jobs, config, PIPELINES[0][1]) is None and len(jobs) == 1
    assert json.loads((tmp_path / "record.json").read_text())["folder"] == "out/a"


def test_every_job_of_a_sweep_has_a_folder_of_its_own(in_sweep, tmp_path):
    in_sweep += ["beta=0.1", "seed=0", "output_root=x"]
    first = sweep.folder(tmp_path)
    in_sweep[:] = ["seed=0", "beta=0.1", "sweep.metric=gold"]
    assert first.parent == tmp_path and sweep.folder(tmp_path) == first
    in_sweep[:] = ["seed=1", "beta=0.1"]
    assert sweep.folder(tmp_path) != first


def test_without_a_sweep_there_is_nothing_to_rank(tmp_path):
    assert sweep.folder(tmp_path) == tmp_path
    sweep.check({"sweep": {"metric": None}})
    sweep.check({})
    with pytest.raises(ConfigError, match=r"^sweep.metric=gold: there are no jobs to rank; add -m"):
        sweep.check({"sweep": {"metric": "gold"}, "policies": ["dpo"]})


def test_a_metric_that_nothing_measures_is_refused_before_the_first_job(in_sweep):
    with pytest.raises(ConfigError, match=r"^sweep.metric=metrics.eval_loss: nothing is measured on held-out rows"):
        sweep.check({"sweep": {"metric": "metrics.eval_loss"}, "args": {}})
    sweep.check({"sweep": {"metric": "eval_loss"}, "args": {"eval_strategy": "steps"}})
    sweep.check({"sweep": {"metric": "eval_loss"}, "evaluate": True})
    sweep.check({"sweep": {"metric": "reward"}, "args": {}})
