"""A training configuration as a workload: which models it holds and which batches it runs, with no weights loaded."""

import math
import tempfile

import trl
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from peft import PeftConfig

from rlhf_trl_ext.configuration.checks import ConfigError, build
from rlhf_trl_ext.configuration.context import fits_context
from rlhf_trl_ext.memory.activations import Arithmetic, Batch
from rlhf_trl_ext.memory.architecture import Architecture, architecture, find_config, known
from rlhf_trl_ext.memory.cards import card_bytes, workspace_bytes
from rlhf_trl_ext.memory.phases import Workload
from rlhf_trl_ext.memory.sharding import OPTIMIZERS, Role, Sharding
from rlhf_trl_ext.models.compiled_decoding import decode_steps, wants_compiled
from rlhf_trl_ext.models.loading import ModelArguments
from rlhf_trl_ext.stages.identity import built_folder
from rlhf_trl_ext.trainers.parts.online import CompletionLogprobs
from rlhf_trl_ext.trainers.parts.shared_base import for_classification

# What a step of TRL's trainers holds cannot be asked of them: rows of a pass for each of a batch; whether the reference
# runs within the loss. Any other trainer is planned as the one of these that it inherits from.
TRAINERS = {
    trl.SFTTrainer: (1, False),
    trl.RewardTrainer: (2, False),
    trl.DPOTrainer: (2, True),
    trl.KTOTrainer: (1, True),
    trl.GRPOTrainer: (1, False),
    trl.RLOOTrainer: (1, False),
}


def workload(config: DictConfig) -> Workload:
    """Read `config`, as `launchers.train` gets it, with `plan` and `num_gpus`. Raises ConfigError or ValueError."""
    return Reading(config).workload()


class Reading:
    """One configuration: its arguments, made as for training but for device, DeepSpeed and number of processes."""

    def __init__(self, config: DictConfig):
        self.config, self.plan = config, config.plan
        self.rows = config.args.get("per_device_train_batch_size", 8)
        settings = OmegaConf.merge(config.args, {"use_cpu": True, "deepspeed": None})
        all_rows = self.rows * config.num_gpus  # this process is one: what is divided by processes must come out right
        with tempfile.TemporaryDirectory() as folder:
            self.args = build(settings, "args", output_dir=folder, per_device_train_batch_size=all_rows)
        if self.args.optim not in OPTIMIZERS:
            raise ConfigError(f"args.optim={self.args.optim.value}: planned can be {', '.join(sorted(OPTIMIZERS))}.")
        self.model: ModelArguments = build(config.model, "model")
        self.lora: PeftConfig | None = self.model.trainer_arguments()["peft_config"]
        trainer = get_class(config.trainer._target_)
        base = next((known for known in TRAINERS if issubclass(trainer, known)), None)
        if base is None:
            allowed = ", ".join(known.__name__ for known in TRAINERS)
            raise ConfigError(f"trainer={config.trainer._target_}: planned can be subclasses of {allowed}.")
        self.per_row, self.reference_in_loss = TRAINERS[base]
        self.online, self.classifies = hasattr(self.args, "steps_per_generation"), base is trl.RewardTrainer
        self.arithmetic, self.weight_bytes = self._arithmetic()

    def workload(self) -> Workload:
        args, gpus = self.args, self.config.num_gpus
        name = self.model.model_name_or_path
        if name not in known():  # else nothing is asked of the hub
            name = self.model.checkpoint(built_folder(self.config))
        policy = self._architecture(name, self.lora, self.classifies)
        lazily = self.arithmetic.device == "cpu"
        sharding = Sharding.read(self.config.args.get("deepspeed"), gpus, policy.hidden, lazily)
        context = self._context(name)
        prompt, length, scored = self._lengths(context)
        replayed = 1 + getattr(args, "replay_ratio", 0)
        colocated = getattr(args, "use_vllm", False) and args.vllm_mode == "colocate"
        return Workload(
            roles=tuple(self._roles(policy)),
            sharding=sharding,
            arithmetic=self.arithmetic,
            batch=Batch(math.ceil(self.rows * self.per_row * replayed), length, scored),
            generated=args.generation_batch_size // gpus if self.online else 0,
            prompt=prompt,
            accumulates=args.gradient_accumulation_steps > 1,
            reference_in_loss=self.reference_in_loss and not getattr(args, "precompute_ref_log_probs", False),
            dropout=bool(self.lora and self.lora.lora_dropout) and not getattr(args, "disable_dropout", False),
            vllm=args.vllm_gpu_memory_utilization * card_bytes(self.plan.card) if colocated else 0.0,
            compiled=self.online and not colocated and sharding.stage < 3 and self._compiles(),
            workspaces=workspace_bytes(self.plan.card) if self.arithmetic.device == "cuda" else 0.0,
            gathers_for_generation=getattr(args, "ds3_gather_for_generation", True),
            context=context,
        )

    def _compiles(self) -> bool:
        """Whether sampling is compiled, as trainers decide it; a run of unknown length counts as a long one."""
        args, steps = self.args, math.inf
        if args.max_steps > 0:
            steps = decode_steps(args, args.max_steps)
        return wants_compiled(getattr(args, "compiled_generation", "auto"), self.arithmetic.device, steps)

    def _arithmetic(self) -> tuple[Arithmetic, int]:
        """Precision of products and bytes of a weight; DeepSpeed keeps half-precision weights whatever was loaded."""
        settings = {**self.model.load_arguments(), **(self.args.model_init_kwargs or {})}
        half = str(settings.get("dtype", "float32")).removeprefix("torch.") in ("bfloat16", "float16", "auto")
        mixed = self.args.bf16 or self.args.fp16
        half = half or bool(mixed and self.config.args.get("deepspeed"))
        mode = "bfloat16" if half else "autocast" if mixed else "float32"
        device = "cpu" if self.config.args.get("use_cpu") else "cuda"
        # On a CPU this project's PPO builds the logits of its completions, and TRL's tiles cover the prompts as well.
        own_head = device == "cpu" and issubclass(get_class(self.config.trainer._target_), CompletionLogprobs)
        whole = self.plan.logits == "whole" or own_head
        return Arithmetic(mode, device, self.args.gradient_checkpointing, whole), 2 if half else 4

    def _lengths(self, context: int | None) -> tuple[int, int, int]:
        """Tokens of a prompt, of a row, and of a row that count in the loss; at most, as every row may be that long.

        A row is no longer than the model's context. Raises ConfigError where a completion leaves no room for a prompt.
        """
        context = context or math.inf
        if self.online:
            completion = self.args.max_completion_length
            fits_context(completion, 1, context)
            prompt = min(self.plan.prompt_length, context - completion)
            return prompt, prompt + completion, completion
        length = min(getattr(self.args, "max_length", None) or self.plan.length, context)
        return 0, length, 0 if self.classifies else length

    def _context(self, name: str) -> int | None:
        """Tokens that the policy can read; None where sizes were given without them, or it does not say."""
        fields = self._fields(name)
        if fields and "model_type" in fields and "max_position_embeddings" not in fields:
            return None
        return getattr(find_config(name, fields).get_text_config(), "max_position_embeddings", None)

    def _fields(self, name: str) -> dict | None:
        """plan.architecture, which is the policy's."""
        is_policy = name == self.model.model_name_or_path
        return OmegaConf.to_container(self.plan.architecture, resolve=True) if is_policy else None

    def _architecture(self, name: str, lora: PeftConfig | None = None, classifier: bool = False) -> Architecture:
        return architecture(find_config(name, self._fields(name)), lora, classifier)

    def _roles(self, policy: Architecture) -> list[Role]:
        packed = {True: "4bit_nested" if self.model.use_bnb_nested_quant else "4bit"}.get(self.model.load_in_4bit)
        packed = "8bit" if self.model.load_in_8bit else packed
        moments = OPTIMIZERS[self.args.optim]
        own = {"weight_bytes": self.weight_bytes, "lora": self.lora is not None, "quantised": packed}
        roles = [Role("policy", policy, trains=True, moment_bytes=moments, **own)]
        beta = getattr(self.args, "beta", 0.0) if self.online else 1.0
        needs_reference = self.online or self.reference_in_loss
        if needs_reference and beta and self.lora is None and not getattr(self.args, "precompute_ref_log_probs", False):
            roles.append(Role("reference", policy, self.weight_bytes))
        for path in self._reward_models():
            roles.append(Role("reward", self._architecture(path, classifier=True), self.weight_bytes))
        return [*roles, *self._critic(policy, own, moments)]

    def _reward_models(self) -> list[str]:
        """Paths of the reward functions that are models of their own."""
        functions = self.config.trainer.get("reward_funcs") or [] if self.online else []
        paths = [one if isinstance(one, str) else one.get("path") for one in functions]
        shared = ["AdapterReward" in str(one) for one in functions]
        return [path for path, shares in zip(paths, shared, strict=True) if path and not shares]

    def _critic(self, policy: Architecture, own: dict, moments: int | None) -> list[Role]:
        args = self.args
        fits_itself = hasattr(args, "vi_value_model")
        if not hasattr(args, "critic_path") or (fits_itself and (args.vi_value_model == "head" or not args.vi_coef)):
            return []
        sizes = policy
        if args.critic_path and not args.critic_shares_base:
            lora = None if self.lora is None else for_classification(self.lora)
            sizes = self._architecture(args.critic_path, lora, classifier=True)
        own = {**own, "weight_bytes": 4} if fits_itself and not own["lora"] else own
        moments = None if fits_itself else moments
        return [Role("critic", sizes, trains=True, shares_base=args.critic_shares_base, moment_bytes=moments, **own)]
