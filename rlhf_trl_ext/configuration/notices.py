"""What libraries print that nobody can act on, left out before they are imported."""

import logging
import os
import sys
import warnings

# Of weights, downloads and tokenisation: read by huggingface_hub, transformers and datasets.
BARS = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")


def leave_out() -> None:
    """Leave out warnings for the authors of libraries and, where there is no terminal, Hugging Face's progress bars."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    # Whatever imports it, on every machine without a GPU.
    logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())
    if not sys.stderr.isatty():
        for name in BARS:
            os.environ.setdefault(name, "1")
