"""The models, precisions and batches that coefficients are measured on."""

import itertools
from dataclasses import dataclass

import torch
from transformers import LlamaForCausalLM

from evaluation.proofs.memory.shapes import Shape

SHAPES = [
    Shape(128, 4, 4, 32, 512),
    Shape(192, 4, 2, 32, 512),
    Shape(128, 4, 2, 64, 640),
    Shape(256, 4, 2, 64, 704),
    Shape(192, 6, 3, 64, 1024),
    Shape(256, 8, 2, 32, 1408),
    Shape(320, 4, 4, 64, 960),
    Shape(160, 8, 4, 32, 800),
]
MODES = {"float32": (torch.float32, False), "autocast": (torch.float32, True), "bfloat16": (torch.bfloat16, True)}
# Rows and positions of a batch; both vary, so that what grows with tokens, positions and weights can be told apart.
BATCHES = ((4, 256), (1, 512), (6, 128), (2, 256), (2, 512), (4, 128), (1, 256), (3, 384))
ALL_LINEAR = ((1, 8, 0.0), (3, 32, 0.05), (4, 16, 0.05), (5, 8, 0.05), (2, 16, 0.0), (6, 16, 0.0), (7, 16, 0.0))
ADAPTED = ("adapted", "dropped", "ranks")


@dataclass
class Case:
    """A model of a shape in a precision, with or without adapters."""

    shape: Shape
    mode: str
    lora: tuple[str, ...] = ()
    rank: int = 0
    dropout: float = 0.0
    rows: int = 2
    length: int = 256

    @property
    def tokens(self) -> int:
        return self.rows * self.length

    def model(self):
        torch.manual_seed(0)
        model = LlamaForCausalLM(self.shape.config()).to(MODES[self.mode][0])
        if self.lora:
            from peft import LoraConfig, get_peft_model

            lora = LoraConfig(r=self.rank, lora_dropout=self.dropout, target_modules=list(self.lora))
            model = get_peft_model(model, lora).get_base_model()
        return model.train()

    def run(self, model):
        ids = torch.randint(0, self.shape.vocabulary, (self.rows, self.length))
        mask = torch.ones_like(ids)
        mask[0, :8] = 0  # padding, as batches have it
        with torch.autocast("cpu", torch.bfloat16, enabled=MODES[self.mode][1]):
            return model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state

    def widths(self) -> list[float]:
        """Per token and layer: the features of the fit."""
        shape = self.shape
        query, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        inputs = {"o_proj": query, "down_proj": shape.intermediate}
        adapted = sum(inputs.get(name, shape.hidden) for name in self.lora)
        adapters = [adapted, adapted * (self.dropout > 0), self.rank * len(self.lora)] if self.lora else []
        return [shape.hidden, query, kv, shape.intermediate, shape.heads, self.length, *adapters]

    def layer_weights(self) -> int:
        shape = self.shape
        query, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        return shape.hidden * (2 * query + 2 * kv + 3 * shape.intermediate)


def full_cases(mode: str) -> list[Case]:
    """Two batches of every shape."""
    batches = (*BATCHES, *BATCHES[3:], *BATCHES[:3])
    return [Case(shape, mode, (), 0, 0.0, *batch) for shape, batch in zip((*SHAPES, *SHAPES), batches, strict=True)]


def lora_cases(mode: str) -> list[Case]:
    """Adapters on all linear layers and on two of them, with and without dropout."""
    every = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    chosen = [(SHAPES[i], mode, every, rank, dropout) for i, rank, dropout in ALL_LINEAR]
    chosen += [(SHAPES[i], mode, every[:3:2], 16, dropout) for i, dropout in ((0, 0.05), (2, 0.0), (4, 0.05), (7, 0.0))]
    return [Case(*case, *batch) for case, batch in zip(chosen, itertools.cycle(BATCHES), strict=False)]
