"""What the launchers of serving refuse, each in one sentence and before anything is started."""

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("launcher", "words", "told"),
    [
        ("serve", ["engine=url"], "policy, policies: give one, policy=<folder>"),
        ("serve", ["policy=/nonexistent/model"], "policy=/nonexistent/model: no such folder"),
        ("serve", ["engine=tgi", "policy=x"], "engine=tgi: allowed are"),
        ("serve", ["engine=url", "policy=http://127.0.0.1:1", "host=0.0.0.0"], "host=0.0.0.0 without keys"),
        ("serve", ["engine=url", "policy=http://127.0.0.1:1", "port=0"], "/v1/models names no model"),
        ("serve", ["engine=url", "policies={auto: http://127.0.0.1:1}", "port=0"], "this name chooses by shares"),
        ("serve", ["engine=url", "policy=http://127.0.0.1:1", "max_concurrent_requests=0"], "at least 1 is needed"),
        ("export", ["policy={tiny}", "format=gguf"], "format=gguf: allowed are"),
        (
            "export",
            ["policy={tiny}", "format=torch", "precision=int4"],
            "precision=int4 with format=torch: allowed are",
        ),
        ("export", ["policy={tiny}", "build=false"], "with build=false: no such export"),
        ("export", ["policy={tiny}", "output={tiny}", "format=torch"], "exists: give overwrite=true"),
        ("monitor", ["traffic=absent.sqlite"], "traffic=absent.sqlite: no such file; launchers.serve writes one"),
        ("monitor", ["rules.reward_drift.metric=kl"], "rules.reward_drift.metric=kl: allowed are reward"),
    ],
)
def test_a_mistake_ends_the_command_with_a_sentence(launcher, words, told, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SERVING_KEYS", raising=False)
    words = [word.replace("{tiny}", str(tiny)) for word in words]
    monkeypatch.setattr(sys, "argv", [f"launchers.{launcher}", *words])
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f"launchers.{launcher}").main()
    assert str(end.value).startswith("error: ") and told in str(end.value)
