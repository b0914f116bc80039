"""A critic of prefixes, fitted by sweeps of soft value iteration over the last batches of completions; its states."""

import contextlib
import math
from collections import deque
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rlhf_trl_ext.functional.value_iteration import linex_loss, soft_returns
from rlhf_trl_ext.trainers.parts.critic import critic_folder, token_states

HEAD, GAINS = "head.safetensors", "gains.safetensors"


class PolicyHead(nn.Module):
    """A critic that is only a linear head, of zeros at first, on the policy's own last hidden states."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.score = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, states: Tensor) -> Tensor:
        """`(B, T, H)` -> `(B, T)` in reward units, float32."""
        return self.score(states.float()).squeeze(-1)

    def save_pretrained(self, folder: Path, state_dict: dict | None = None) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file(state_dict or self.state_dict(), Path(folder, HEAD))

    def load_pretrained(self, folder: Path) -> None:
        self.load_state_dict(load_file(Path(folder, HEAD)))


class TokenGains(nn.Module):
    """What each token adds to the value: `<W h_t, e(y_t)> / H`, h the hidden state before it, e its unit embedding.

    The value of a prefix is the critic's own plus the gains of its tokens. A sum over tokens is what the additive part
    of a reward is, and a product of state and token is what a policy's logit is, so that this is learnt much sooner
    than by a head on the state after the token. W is zero at first.
    """

    def __init__(self, hidden_size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(hidden_size, hidden_size))

    def forward(self, states: Tensor, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Summed gains of the tokens before each. states, embeddings: `(B, T, H)`, mask: `(B, T)`; returns `(B, T)`."""
        tokens = nn.functional.normalize(embeddings.detach().float(), dim=-1)
        gains = (states.float() @ self.weight * tokens).sum(-1) / len(self.weight) * mask  # (B, T)
        return gains.cumsum(dim=1) - gains


class PrefixValues(nn.Module):
    """`V(s_t) = critic(s_t) + sum_{l < t} gain(s_l, y_l)` before every completion token.

    critic: a sequence classifier with one label, a PEFT model of one, or a `PolicyHead`. policy: causal language model
    whose states a `PolicyHead` reads.
    """

    def __init__(self, critic: nn.Module, policy: nn.Module):
        super().__init__()
        self.critic = critic
        read = policy if isinstance(critic, PolicyHead) else critic
        read = read.get_base_model() if hasattr(read, "peft_config") else read
        self.read = (read,)  # no submodule: its parameters are not all the critic's
        self.gains = TokenGains(read.config.get_text_config().hidden_size).to(read.device)

    @property
    def backbone(self) -> nn.Module:
        """What computes hidden states: the critic's own, or the policy's for a `PolicyHead`."""
        return self.read[0].base_model

    def states(self, batch: dict) -> Tensor:
        """Last hidden states `(B, T, H)` before every completion token. batch: ids and masks, as TRL names them."""
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)  # (B, P + T)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        return token_states(self.backbone, ids, mask, batch["completion_ids"].shape[1])

    def forward(self, batch: dict) -> Tensor:
        """`(B, T)` in reward units, float32. batch: what `states` reads, or `states`; completion_ids; token_mask."""
        if isinstance(self.critic, PolicyHead):
            states = batch["states"]
            values = self.critic(states)
        else:
            states = self.states(batch)
            values = self.read[0].score(states).squeeze(-1).float()
        embeddings = self.read[0].get_input_embeddings()(batch["completion_ids"])
        return values + self.gains(states, embeddings, batch["token_mask"])

    def save_gains(self, folder: str) -> None:
        """Beside the critic in a saved model."""
        save_file(self.gains.state_dict(), critic_folder(self.critic, folder) / GAINS)

    def load_gains(self, folder: Path) -> None:
        """folder: a saved critic's own. Raises ValueError if it has none."""
        if not Path(folder, GAINS).exists():
            raise ValueError(f"{folder} has no {GAINS}: it is no critic of GRPO-VI's.")
        self.gains.load_state_dict(load_file(Path(folder, GAINS)))


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
            self._backward((losses * mask).sum() / states)
            before.append(values.detach())
            with torch.no_grad():
                sums += torch.stack([(x * mask).sum() for x in (losses, (returns - values) ** 2, clipped)])
        self._update()
        loss, residual, clipped = self.total(sums) / states
        return torch.cat(before), {"loss": loss, "bellman_residual": residual, "linex_clip_frac": clipped}

    def _backward(self, loss: Tensor) -> None:
        loss.backward()

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


@contextlib.contextmanager
def generation_states(trainer, values: PrefixValues):
    """While inside, the hidden states `(B, H)` before every generated token are appended to the list that this yields.

    Generation calls the policy once for every token, which is all that a `PolicyHead` needs; others need nothing.
    Nothing is appended where the step is compiled, which has no room for a hook.
    """
    states, generate = [], trainer._generate_single_turn
    if trainer.compiles() or not isinstance(values.critic, PolicyHead):
        yield states
        return

    def generating(*args, **kwargs):
        handle = values.backbone.register_forward_hook(
            lambda _, __, outputs: states.append(outputs.last_hidden_state[:, -1])
        )
        try:
            return generate(*args, **kwargs)
        finally:
            handle.remove()

    trainer._generate_single_turn = generating
    try:
        yield states
    finally:
        del trainer._generate_single_turn
