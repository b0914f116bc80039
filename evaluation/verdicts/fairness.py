"""Whether a judge is fair: whether policies were trained for the very scores or opinions that judge them."""

import json
from pathlib import Path

from omegaconf import OmegaConf

from rlhf_trl_ext.files import read_mark
from rlhf_trl_ext.judging.judge import Judge
from rlhf_trl_ext.stages.identity import deciding, digest
from rlhf_trl_ext.stages.needs import reward_needs

INSTEAD = "judge by another: judge=endpoint, judge=reward_model judge.path=<one not trained on>, or held_out=model"


def optimised(config, records: dict[str, dict]) -> dict:
    """What the policies of a pipeline were trained for, as results.json keeps it.

    policies: those that sampled while they trained, so that a reward scored them. rewards: its functions as texts, with
    `<folder of STAGE>` for what a stage of the pipeline trains. stages: fingerprints of the stages of the pipeline.
    labeller: identities of the judges whose opinions were learnt.
    """
    whole = config.copy()
    for key, stage in reward_needs(config.reward).items():
        OmegaConf.update(whole, key, f"<folder of {stage}>", force_add=True)
    reward = OmegaConf.to_container(whole.reward, resolve=True)
    judges = [config.labeller] if config.get("labeller") else []
    judges += [config.reward.judge] if config.reward.get("judge") else []
    return {
        "policies": [name for name in config.policies if records.get(name, {}).get("sampled_tokens")],
        "rewards": [text for text in (reward.get("path"), json.dumps(reward["functions"])) if text],
        "stages": [record["fingerprint"] for record in records.values() if "fingerprint" in record],
        "labeller": [_identity(OmegaConf.to_container(judge, resolve=True)) for judge in judges],
        "held_out": bool(config.get("held_out")),
    }


def fairness(judge: Judge, settings: dict, trained: dict | None) -> str:
    """One line: yes, no or in part, and why. Ask it after judging, as a judge of scores chooses its column then.

    settings: the judge's configuration. trained: see `optimised`; None where nobody knows.
    """
    if judge.name.startswith("gold"):
        own = trained and "GoldReward" in "".join(trained["rewards"])
        return "yes: the gold reward is this task's truth" + (", and what the policies were trained on" if own else "")
    if trained is None:
        if judge.recorded:
            return f"only if no policy was trained for the {judge.name} that the samples carry: nothing here says so"
        return f"only if no policy was trained for the opinions of {judge.name}: nothing here says so"
    if judge.name == "held_out_reward":
        return "yes: no policy was trained for the held-out reward, though their checkpoints were chosen by it"
    if judge.name == "reward" or _trained_here(settings.get("path"), trained):
        if trained["policies"]:
            names = ", ".join(trained["policies"])
            return f"no: {names} trained for the very reward that judges here, and may exploit its errors; {INSTEAD}"
        return "in part: no policy trained for this reward, but its model may have learnt from the same pairs"
    if _identity(settings) in trained["labeller"]:
        return f"no: the policies learnt from the opinions of the very judge that judges here; {INSTEAD}"
    return f"yes: no policy was trained for the opinions of {judge.name}"


def expectation(config, dataset) -> str | None:
    """A warning before anything is trained, where recorded scores will judge and only the optimised reward is there."""
    judge = config.judge
    if not str(judge.get("_target_")).endswith(".ScoreJudge") or judge.get("field") not in (None, "reward"):
        return None
    if judge.field is None and (getattr(dataset, "gold", None) or config.get("held_out")):
        return None
    return f"Policies will be judged by the reward that online ones are trained for, which is no fair judge; {INSTEAD}."


def _trained_here(path: str | None, trained: dict) -> bool:
    """Whether a reward model's folder or name is that of the reward, or of any stage of the pipeline."""
    if path is None:
        return False
    mark = read_mark(Path(path) / "stage.json", ("fingerprint",)) or {}
    known = {Path(reward).resolve() for reward in trained["rewards"] if "{" not in reward}
    return mark.get("fingerprint") in trained["stages"] or Path(path).resolve() in known


def _identity(settings: dict) -> str:
    return digest(deciding(settings))
