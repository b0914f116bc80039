"""Peak memory of a run: the maximum over its phases of held memory plus what the phase adds."""

from dataclasses import dataclass, field

from rlhf_trl_ext.memory.activations import Arithmetic, Batch, Passes
from rlhf_trl_ext.memory.sharding import Role, Sharding, gathered, held

HELD = ("weights", "optimizer")


@dataclass(frozen=True)
class Workload:
    """Everything that a prediction needs, as plain numbers.

    roles: policy first, then reference, reward and critic models where a run has them. batch: a forward and backward
    pass. generated: rows that a process samples at a time, 0 for offline algorithms. reference_in_loss: the reference's
    forward pass happens while the policy's activations are held, as in DPO. accumulates: whether gradients of earlier
    passes are there already. vllm: bytes that a colocated engine takes for itself. compiled: sampling is, with a cache
    that stays. workspaces: bytes that CUDA's libraries keep. context: tokens that the policy can read, if it says so.
    """

    roles: tuple[Role, ...]
    sharding: Sharding
    arithmetic: Arithmetic
    batch: Batch
    generated: int = 0
    prompt: int = 0
    accumulates: bool = False
    reference_in_loss: bool = False
    dropout: bool = False
    vllm: float = 0.0
    compiled: bool = False
    workspaces: float = 0.0
    gathers_for_generation: bool = True
    context: int | None = None


@dataclass
class Prediction:
    """Bytes of a GPU. held: by role and kind; phases: by phase, what it adds; host: of a process; constant: by kind."""

    held: dict[str, dict[str, float]]
    phases: dict[str, dict[str, float]]
    host: float
    constant: dict[str, float] = field(default_factory=dict)

    @property
    def base(self) -> float:
        """Weights, optimizer states and what else is always there."""
        models = sum(kinds[kind] for kinds in self.held.values() for kind in (*HELD, "buckets"))
        return models + sum(self.constant.values())

    @property
    def peak(self) -> float:
        return self.base + max(sum(parts.values()) for parts in self.phases.values())

    @property
    def peak_phase(self) -> str:
        return max(self.phases, key=lambda phase: sum(self.phases[phase].values()))


def predict(load: Workload) -> Prediction:
    """Bytes of every phase, from `load` alone."""
    states = {role.name: held(role, load.sharding) for role in load.roles}
    host = sum(kinds["host"] for kinds in states.values())
    policy = load.roles[0]
    passes = Passes(policy.architecture, load.arithmetic, policy.lora, load.dropout)
    gradients = {role.name: states[role.name]["gradients"] for role in load.roles if role.trains}
    phases = _training(load, passes, gradients[policy.name])
    critic = next((role for role in load.roles if role.name == "critic" and role.trains), None)
    if critic is not None:
        phases |= _critic(load, critic, gradients, phases)
    phases["optimizer step"] = {"gradients": sum(gradients.values())}
    if load.generated:
        phases |= _sampling(load, passes)
    constant = {"vLLM": load.vllm, "workspaces": load.workspaces}
    if load.compiled:
        constant["static cache"] = passes.static_cache(load.generated, load.batch.length)
    return Prediction(states, phases, host, constant)


def _training(load: Workload, passes: Passes, gradients: float) -> dict[str, dict[str, float]]:
    """Forward and backward of the policy. Backward begins with all activations and ends with all gradients."""
    policy, batch = load.roles[0], load.batch
    weights = gathered(policy, load.sharding)
    saved, kept, earlier = passes.saved(batch), passes.kept(batch), gradients if load.accumulates else 0.0
    # Backward frees what a layer has saved, or its input, when it is past that layer.
    one_layer = saved - kept * (1 - 1 / policy.architecture.layers)
    if not load.arithmetic.checkpointing:
        one_layer = saved / policy.architecture.layers
    embedding = 0.0 if policy.lora else policy.architecture.embedding * policy.weight_bytes
    logits = {"logits": passes.logits(batch, backward=True)}
    parts = {
        "backward, logits": {"activations": kept, "gradients": earlier, **logits, "gathered": weights},
        "backward, first layer": {
            "activations": saved + passes.backward(batch),
            "gradients": max(earlier, min(embedding, gradients) if batch.scored else 0.0),
            "gathered": weights,
        },
        "backward, last layer": {
            "activations": one_layer + passes.backward(batch),
            "gradients": gradients,
            "gathered": weights,
        },
        "backward, embedding": {"gradients": gradients + embedding, "gathered": weights},
    }
    if load.reference_in_loss:
        reference = Passes(policy.architecture, load.arithmetic)  # with adapters it is the policy with them off
        of_loss = {"activations": kept + reference.forward(batch), "logits": passes.logits(batch, backward=False)}
        parts["reference forward"] = {**of_loss, "gradients": earlier, "gathered": weights}
    return parts


def _critic(load: Workload, critic: Role, gradients: dict, phases: dict) -> dict[str, dict[str, float]]:
    """The critic's pass, with the policy's gradients there; DeepSpeed runs both backward passes as one."""
    passes = Passes(critic.architecture, load.arithmetic, critic.lora, load.dropout)
    saved = passes.saved(load.batch) + passes.backward(load.batch)
    held_gradients = gradients[load.roles[0].name] + (gradients["critic"] if load.accumulates else 0.0)
    if load.sharding.deepspeed:
        saved += phases["backward, logits"]["activations"]
    return {
        "critic, first layer": {"activations": saved, "gradients": held_gradients},
        "critic, last layer": {"activations": saved / critic.architecture.layers, "gradients": sum(gradients.values())},
    }


def _sampling(load: Workload, passes: Passes) -> dict[str, dict[str, float]]:
    """Generation and scoring, before there are gradients. Reward models read all completions of a process at once."""
    policy, rows, batch = load.roles[0], load.generated, load.batch
    whole = policy.weights if load.sharding.stage == 3 and load.gathers_for_generation else 0.0
    parts = {
        "scoring": {
            "activations": passes.forward(batch),
            "logits": passes.logits(batch, backward=False),
            "gathered": gathered(policy, load.sharding),
        }
    }
    if not load.vllm:
        grows = not load.compiled
        caches = {"KV cache": grows * passes.cache(rows, batch.length), "logits": passes.sampling(rows, batch.length)}
        prompts = Batch(rows, load.prompt)
        filled = {"activations": passes.forward(prompts), "KV cache": grows * passes.cache(rows, load.prompt)}
        parts |= {"generation": {**caches, "gathered": whole}, "prompts": {**filled, "gathered": whole}}
    for role in load.roles:
        if role.name == "reward":
            read = Passes(role.architecture, load.arithmetic, role.lora).forward(Batch(rows, batch.length))
            parts["reward model"] = {"activations": read, "gathered": gathered(role, load.sharding)}
    return parts
