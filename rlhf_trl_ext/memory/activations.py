"""Activations, logits and caches in bytes: linear in tokens and widths, with measured coefficients."""

from dataclasses import dataclass

from rlhf_trl_ext.memory.architecture import Architecture
from rlhf_trl_ext.memory.coefficients import coefficients

TILE_ROWS, TILE_COLUMNS = 4096, 32768  # TRL's fused LM head: trl/kernels/chunked_logprob.py, trl/trainer/utils.py


@dataclass(frozen=True)
class Arithmetic:
    """How numbers are kept. mode: float32, autocast or bfloat16, as in coefficients.yaml. whole_logits: as TRL before
    its fused head, which built the logits of a batch in float32."""

    mode: str = "bfloat16"
    device: str = "cuda"
    checkpointing: bool = True
    whole_logits: bool = False

    @property
    def width(self) -> int:
        """Bytes of a product's element."""
        return 4 if self.mode == "float32" else 2


@dataclass(frozen=True)
class Batch:
    """Rows of `length` tokens, of which `scored` in each row have a log-probability in the loss."""

    rows: int
    length: int
    scored: int = 0

    @property
    def tokens(self) -> int:
        return self.rows * self.length


def _linear(fitted: dict, sizes: Architecture, batch: Batch, dropout: bool) -> float:
    widths = {"hidden": sizes.hidden, "query": sizes.query, "kv": sizes.kv, "intermediate": sizes.intermediate}
    widths |= {"heads": sizes.heads, "length": batch.length, "adapted": sizes.adapted, "ranks": sizes.ranks}
    widths["dropped"] = sizes.adapted * dropout
    per_token = sum(widths[name] * value for name, value in fitted.items() if name in widths)
    return batch.tokens * per_token + fitted["weights"] * sizes.layer_weights


@dataclass(frozen=True)
class Passes:
    """Bytes of one model's passes over a batch, by its architecture and arithmetic."""

    sizes: Architecture
    arithmetic: Arithmetic
    lora: bool = False
    dropout: bool = False

    def _of(self, what: str, batch: Batch) -> float:
        kind = "lora" if self.lora else "full"
        return _linear(coefficients()[self.arithmetic.mode][kind][what], self.sizes, batch, self.dropout)

    def kept(self, batch: Batch) -> float:
        """Held when the forward pass has ended; with checkpointing the inputs of all layers."""
        fitted = coefficients()[self.arithmetic.mode]
        around = fitted["lora" if self.lora else "full"]["around"]
        outside = batch.tokens * (around["hidden"] * self.sizes.hidden + around["length"] * batch.length)
        inputs = fitted["checkpointed"]["hidden"] * batch.tokens * self.sizes.hidden
        return outside + self.sizes.layers * (inputs if self.arithmetic.checkpointing else self._of("saved", batch))

    def saved(self, batch: Batch) -> float:
        """Held in the backward pass; with checkpointing also what one layer, computed anew, saves."""
        return self.kept(batch) + (self._of("saved", batch) if self.arithmetic.checkpointing else 0.0)

    def backward(self, batch: Batch) -> float:
        """What backward works with beyond what was saved."""
        return self._of("backward", batch)

    def forward(self, batch: Batch) -> float:
        """A pass without gradients."""
        return self._of("forward", batch)

    def logits(self, batch: Batch, backward: bool) -> float:
        """TRL's fused LM head over the scored tokens (on CPU: over all), a tile of 4,096 by 32,768 at a time.

        In backward also the float32 gradients of hidden states and, unless it is frozen, of the head.
        """
        fitted = coefficients()
        if not batch.scored:
            return 0.0
        if self.arithmetic.whole_logits:
            rows, columns = batch.rows * batch.scored, self.sizes.vocabulary
            return rows * columns * (fitted["materialised"]["bytes"] if backward else 8)
        on_cpu = self.arithmetic.device == "cpu"
        scored = batch.tokens if on_cpu else batch.rows * batch.scored
        columns = min(self.sizes.vocabulary, TILE_COLUMNS) if on_cpu else TILE_COLUMNS
        folded = fitted[self.arithmetic.mode]["head"]["backward" if backward else "forward"] if on_cpu else 0.0
        tile = min(scored, TILE_ROWS) * columns * (self.arithmetic.width + folded)
        if not backward:
            return tile
        return tile + 4 * scored * self.sizes.hidden + (0 if self.lora else 4 * self.sizes.embedding)

    def cache(self, rows: int, length: int) -> float:
        """Keys and values of all layers, in generation."""
        fitted = coefficients()[self.arithmetic.mode]["generation"]["cache"]
        return fitted * rows * length * self.sizes.layers * self.sizes.kv

    def static_cache(self, rows: int, length: int) -> float:
        """Keys and values of all layers, allocated once for a run with compiled sampling."""
        return 2 * self.arithmetic.width * rows * length * self.sizes.layers * self.sizes.kv

    def sampling(self, rows: int, length: int) -> float:
        """Next-token probabilities, and the attention of one step."""
        fitted = coefficients()[self.arithmetic.mode]["generation"]
        return fitted["vocabulary"] * rows * self.sizes.vocabulary + fitted["query"] * rows * length * self.sizes.query
