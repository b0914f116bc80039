"""A critic that is fitted by sweeps of soft value iteration over the last batches of completions."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor, nn

from rlhf_trl_ext.functional.value_iteration import linex_loss, soft_returns


@dataclass
class FittingArguments:
    """Arguments of value iteration itself; mixed into a subclass of `trl.GRPOConfig`."""

    critic_learning_rate: float | None = field(default=None, metadata={"help": "null: five times the policy's."})
    critic_max_grad_norm: float | None = field(
        default=None,
        metadata={"help": "null: max_grad_norm; 0: no clipping. Clipped at 1, values of rare rewards can stay low."},
    )
    vi_temperature: float | str = field(
        default="auto",
        metadata={"help": "eta, in reward units; inf: policy evaluation; auto: from the rewards' range and noise."},
    )
    vi_target_lambda: float = field(default=0.9, metadata={"help": "Of the returns that the critic is fitted to."})
    vi_sweeps: int = field(default=1, metadata={"help": "Over a batch and the buffer; an optimizer step for each."})
    vi_sweep_batches: float | None = field(
        default=1.5,
        metadata={"help": "Batches in a sweep: the new one, others drawn, half of one for .5; null: the whole buffer."},
    )
    vi_buffer: int = field(default=4, metadata={"help": "Earlier batches that the critic goes on learning from."})
    vi_target_tau: float = field(default=1.0, metadata={"help": "Step of the target network; 1: there is none."})
    vi_linex_clip: float = field(default=5.0, metadata={"help": "Error / eta from which the loss is linear."})
    vi_warmup: int = field(default=0, metadata={"help": "Batches that the critic learns from before A^VI counts."})
    vi_pretrain: int = field(
        default=0, metadata={"help": "Batches that only the critic learns from, the policy's advantages being 0."}
    )
    vi_equal_groups: float = field(
        default=1.0, metadata={"help": "Share of A^VI where a group's rewards are all equal: the critic's word alone."}
    )
    vi_state_stride: int = field(default=1, metadata={"help": "Tokens of a segment, which shares one advantage."})

    def __post_init__(self):
        if self.vi_temperature != "auto" and (isinstance(self.vi_temperature, str) or self.vi_temperature <= 0):
            raise ValueError(f"vi_temperature={self.vi_temperature}: a number above 0, inf, or auto is allowed.")
        for entry in fields(self):
            value, allowed = getattr(self, entry.name), entry.metadata.get("choices")
            if entry.name.startswith("vi_") and allowed and value not in allowed:
                raise ValueError(f"{entry.name}={value}: allowed are {', '.join(allowed)}.")
        ranges = {"vi_target_lambda": (0, 1), "vi_target_tau": (1e-4, 1), "vi_linex_clip": (1, 20)}
        ranges |= {
            "vi_equal_groups": (0, 1),
            "vi_sweeps": (0, None),
            "vi_buffer": (0, None),
            "vi_sweep_batches": (1, None),
            "critic_max_grad_norm": (0, None),
        }
        ranges |= {"vi_warmup": (0, None), "vi_pretrain": (0, None), "vi_state_stride": (1, None)}
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= (math.inf if high is None else high):
                limits = f"{low} or more" if high is None else f"{low} to {high}"
                raise ValueError(f"{name}={value}: {limits} is allowed.")
        if self.critic_learning_rate is None:
            self.critic_learning_rate = 5 * self.learning_rate
        if self.critic_max_grad_norm is None:
            self.critic_max_grad_norm = self.max_grad_norm
        super().__post_init__()


class ValueFitting:
    """Optimiser, target network, value buffer and random state of a critic; knows no trainer.

    A batch is a dictionary of tensors with a leading dimension B: what `values` reads, `rewards` `(B,)` and
    `value_mask` `(B, T)`, 1 where a state is valued. Processes hold equal critics and their own rows: gradients are
    summed over all of them, so that the critics stay equal and two processes compute what one would.

    critic: its parameters that require gradients are fitted. values: `values(batch)` -> `(B, T)` of that critic.
    args: `GRPOVIConfig`. total: sums a tensor over processes. rows: rows at a time.
    """

    def __init__(self, critic: nn.Module, values: Callable, args, total: Callable[[Tensor], Tensor], rows: int):
        self.values, self.args, self.total, self.rows = values, args, total, rows
        self.parameters = [parameter for parameter in critic.parameters() if parameter.requires_grad]
        for parameter in self.parameters:  # half precision would lose the small steps of optimizer and target network
            parameter.data = parameter.data.float()
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=args.critic_learning_rate,
            betas=(args.adam_beta1, args.adam_beta2),
            eps=args.adam_epsilon,
            weight_decay=0.0,
        )
        bootstraps = args.vi_target_tau < 1 and args.vi_target_lambda < 1
        self.target = [parameter.detach().clone() for parameter in self.parameters] if bootstraps else None
        self.buffer = deque(maxlen=args.vi_buffer)
        self.generator = torch.Generator().manual_seed(args.seed)  # the same in all processes

    def sweep(
        self, batch: dict, temperature: float, bounds: tuple, keep: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Fit to a new batch and the buffer; returns the new batch's values `(B, T)` as they were before, and metrics.

        The values come from the first step's forward pass: a critic that had already seen the rewards of these rows
        would take them for their own baseline. keep: `(B,)` bool, rows that go to the buffer; None: all.
        """
        values, metrics = self.step(batch, temperature, bounds)
        batches = [batch, *self.buffer]
        for sweep in range(self.args.vi_sweeps):
            order = torch.randperm(len(batches), generator=self.generator).tolist()
            order = [place for place in order if place or sweep]
            left = math.inf if self.args.vi_sweep_batches is None else self.args.vi_sweep_batches - (sweep == 0)
            for place in order[: math.ceil(min(left, len(order)))]:
                # Every n-th row: the same ones, however many processes the rows are spread over.
                every = max(1, round(1 / left))
                first = int(torch.randint(every, (), generator=self.generator)) if every > 1 else 0
                self.step({name: rows[first::every] for name, rows in batches[place].items()}, temperature, bounds)
                left -= 1
        self.buffer.append(batch if keep is None else {name: rows[keep] for name, rows in batch.items()})
        return values, metrics

    def step(self, batch: dict, temperature: float, bounds: tuple) -> tuple[Tensor, dict[str, Tensor]]:
        """One optimizer step on all rows of `batch`; returns their values before it, and metrics of the fit.

        bounds: smallest and largest reward, between which soft values lie. Estimates that returns are made from are
        kept there: LINEX pulls up by exp(. / eta) and down by eta at most, and would follow its own excess upwards.
        """
        args, before, sums = self.args, [], torch.zeros(3, device=batch["rewards"].device)
        states = self.total(batch["value_mask"].sum().float()).clamp(min=1)
        for start in range(0, len(batch["rewards"]), self.rows):
            part = {name: rows[start : start + self.rows] for name, rows in batch.items()}
            mask = part["value_mask"].float()
            bootstrap = None if self.target is None else self._target_values(part)
            values = self.values(part)
            bootstrap = (values.detach() if bootstrap is None else bootstrap).clamp(*bounds)
            returns = soft_returns(part["rewards"], bootstrap, mask, temperature, args.vi_target_lambda)
            losses, clipped = linex_loss(returns - values, temperature, args.vi_linex_clip)
            ((losses * mask).sum() / states).backward()
            before.append(values.detach())
            with torch.no_grad():
                sums += torch.stack([(x * mask).sum() for x in (losses, (returns - values) ** 2, clipped)])
        self._update()
        loss, residual, clipped = self.total(sums) / states
        return torch.cat(before), {"loss": loss, "bellman_residual": residual, "linex_clip_frac": clipped}

    def _update(self) -> None:
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad = self.total(parameter.grad)
        if self.args.critic_max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.args.critic_max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.target is not None:
            with torch.no_grad():
                torch._foreach_lerp_(self.target, self.parameters, self.args.vi_target_tau)

    @torch.no_grad()
    def _target_values(self, batch: dict) -> Tensor:
        self._swap()
        try:
            return self.values(batch)
        finally:
            self._swap()

    def _swap(self) -> None:
        for place, parameter in enumerate(self.parameters):
            parameter.data, self.target[place] = self.target[place], parameter.data

    def state(self) -> dict:
        """What all processes hold alike, besides the critic's weights; the buffer is each process's own."""
        generator = self.generator.get_state()
        return {"optimizer": self.optimizer.state_dict(), "target": self.target, "generator": generator}

    def load_state(self, state: dict) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        for target, saved in zip(self.target or [], state["target"] or [], strict=True):
            target.copy_(saved)

    def fill(self, batches: list[dict], device: torch.device) -> None:
        """Put saved batches back into the buffer."""
        self.buffer.extend({name: rows.to(device) for name, rows in batch.items()} for batch in batches)
