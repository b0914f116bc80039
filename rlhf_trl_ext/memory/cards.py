"""Memory of the cards that runs are planned for."""

GIB = 2**30
# GiB as the makers' names say them.
CARDS = {"rtx4090": 24, "rtx3090": 24, "rtx5090": 32, "l4": 24, "l40s": 48, "a10": 24, "a40": 48, "a6000": 48}
CARDS |= {
    "v100-16gb": 16,
    "v100-32gb": 32,
    "t4": 16,
    "a100-40gb": 40,
    "a100-80gb": 80,
    "h100": 80,
    "h200": 141,
    "b200": 180,
}


# Workspaces of cuBLAS in MiB: of the main thread and of autograd's. On Hopper measured (torch 2.11, H100); elsewhere by
# PyTorch's source, aten/src/ATen/cuda/CublasHandlePool.cpp.
HOPPER, OTHERS = 65, 18


def workspace_bytes(card: str | float) -> float:
    """Bytes that CUDA's libraries keep on a card by name or in GiB."""
    return (HOPPER if str(card).lower() in ("h100", "h200", "b200") else OTHERS) * 2.0**20


def card_bytes(card: str | float) -> float:
    """Bytes of a card by name or in GiB. Raises ValueError for an unknown name."""
    try:
        return float(card) * GIB
    except ValueError:
        if str(card).lower() in CARDS:
            return CARDS[str(card).lower()] * float(GIB)
    raise ValueError(f"plan.card={card}: a number of GiB is allowed, or {', '.join(sorted(CARDS))}.")
