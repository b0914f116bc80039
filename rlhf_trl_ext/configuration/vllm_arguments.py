"""Arguments of vLLM that would fail once the weights are loaded, or bias what is learnt."""

import importlib.metadata

from packaging.requirements import Requirement
from packaging.version import Version

from rlhf_trl_ext.configuration.training_run import Run


def vllm_version(run: Run) -> str | None:
    if not run.argument("use_vllm"):
        return None
    required = [Requirement(line) for line in importlib.metadata.requires("trl")]
    allowed = next(one.specifier for one in required if one.name == "vllm")
    remedy = "`make setup-gpu` (on a CPU `make vllm`), or pip install -e '.[vllm]' -c .ci/constraints-gpu.txt"
    installed = _installed("vllm")
    if installed is None:
        return f"args.use_vllm=true: vLLM is not installed; {remedy}, or leave it false."
    if Version(Version(installed).base_version) not in allowed:
        return f"args.use_vllm=true: vLLM {installed} is installed and TRL needs {allowed}; {remedy}."
    for need in _needs("vllm"):
        version = _installed(need.name) if need.name in ("transformers", "torch") else None
        if version is not None and Version(version).base_version not in need.specifier:
            return f"args.use_vllm=true: vLLM {installed} needs {need} and {version} is installed; {remedy}."
    return None


def vllm_sampling(run: Run) -> str | None:
    """vLLM gives log-probs of what such arguments leave of the distribution, the trainer of all; RLOO has no ratio."""
    if not run.argument("use_vllm") or not run.argument("vllm_importance_sampling_correction"):
        return None
    for name, off in (("top_p", 1), ("top_k", 0), ("min_p", 0)):
        value = run.argument(name)
        if value not in (None, off, -1):
            return (
                f"args.{name}={value} with args.use_vllm=true: the importance ratio is biased (huggingface/trl#6789); "
                f"leave {name} out, or give args.vllm_importance_sampling_correction=false."
            )
    return None


def vllm_server(run: Run) -> str | None:
    """Weights go to a server through NCCL."""
    if not run.argument("use_vllm") or run.argument("vllm_mode", "colocate") != "server" or not run.argument("use_cpu"):
        return None
    return (
        "args.vllm_mode=server with args.use_cpu=true: TRL sends weights from GPU to GPU; give "
        "args.use_cpu=false, or args.vllm_mode=colocate."
    )


def _needs(package: str) -> list[Requirement]:
    """What an installed package requires, extras left out."""
    try:
        lines = importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    needs = [Requirement(line) for line in lines]
    return [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
