"""Bytes of live tensors, counted at every operation."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts storages that come into being inside and are still alive: `current` and, at its highest, `peak`, in bytes.

    torch's own MemTracker does the same by module, and refuses models with frozen parameters.
    """

    def __init__(self):
        super().__init__()
        self.current = self.peak = 0
        self._known = weakref.WeakSet()

    def leave_out(self, module: torch.nn.Module) -> "LiveBytes":
        """Do not count the parameters and buffers of `module`."""
        for tensor in (*module.parameters(), *module.buffers()):
            self._known.add(tensor.untyped_storage())
        return self

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        self.current += storage.nbytes()
        self.peak = max(self.peak, self.current)
        weakref.finalize(storage, self._freed, storage.nbytes())

    def _freed(self, size: int) -> None:
        self.current -= size
