"""A critic fitted by sweeps of soft value iteration over the last batches of completions."""

import math
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor, nn

from rlhf_trl_ext.functional.policy_gradient import length_adaptive_lambda
from rlhf_trl_ext.functional.value_iteration import linex_clip, linex_loss, soft_returns


class ValueFitting:
    """Optimiser, value buffer and random state of a critic; knows no trainer.

    A batch is a dictionary of tensors with a leading dimension B: what `values` reads, `rewards` `(B,)` and
    `value_mask` `(B, T)`, 1 where a state is valued. Processes hold equal critics and their own rows: gradients are
    summed over all of them, so that the critics stay equal and two processes compute what one would.

    critic: its parameters that require gradients are fitted. values: `values(batch)` -> `(B, T)` of that critic.
    args: `GRPOVIConfig`. total: sums a tensor over processes. rows: rows at a time.
    """

    def __init__(self, critic: nn.Module, values: Callable, args, total: Callable[[Tensor], Tensor], rows: int):
        self.values, self.args, self.total, self.rows = values, args, total, rows
        self.parameters = [parameter for parameter in critic.parameters() if parameter.requires_grad]
        for parameter in self.parameters:  # half precision would lose the optimizer's small steps
            parameter.data = parameter.data.float()
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=args.critic_learning_rate,
            betas=(args.adam_beta1, args.adam_beta2),
            eps=args.adam_epsilon,
            weight_decay=0.0,
        )
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
        clip = linex_clip(bounds, temperature) if args.vi_linex_clip == "auto" else args.vi_linex_clip
        for start in range(0, len(batch["rewards"]), self.rows):
            part = {name: rows[start : start + self.rows] for name, rows in batch.items()}
            mask = part["value_mask"].float()
            values = self.values(part)
            lam = args.vi_target_lambda
            lam = length_adaptive_lambda(mask, alpha=1.0) if lam == "auto" else lam
            returns = soft_returns(part["rewards"], values.detach().clamp(*bounds), mask, temperature, lam)
            losses, clipped = linex_loss(returns - values, temperature, clip)
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

    def state(self) -> dict:
        """What all processes hold alike, besides the critic's weights; the buffer is each process's own."""
        return {"optimizer": self.optimizer.state_dict(), "generator": self.generator.get_state()}

    def load_state(self, state: dict) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])

    def fill(self, batches: list[dict], device: torch.device) -> None:
        """Put saved batches back into the buffer."""
        self.buffer.extend({name: rows.to(device) for name, rows in batch.items()} for batch in batches)
