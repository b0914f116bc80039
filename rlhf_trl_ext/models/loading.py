"""Checkpoint and tokenizer of a run: `trl.ModelConfig` plus a builder for models made from code and a chat template."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import trl
from filelock import FileLock
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template

from rlhf_trl_ext.configuration.paths import adapter_folder, split_revision
from rlhf_trl_ext.models.pretrained import load_policy, load_tokenizer
from rlhf_trl_ext.models.saving import merge_adapter

TEMPLATES = Path(__file__).parents[1] / "chat_templates"


@dataclass
class ModelArguments(trl.ModelConfig):
    """`trl.ModelConfig` with only three keys added."""

    build: Any = field(default=None, metadata={"help": "Called with a folder to make the model when no path is given."})
    chat_template: str | None = field(
        default=None,
        metadata={"help": "In place of the tokenizer's own: a name in rlhf_trl_ext/chat_templates, or a file."},
    )
    merge_adapter: bool = field(
        default=True, metadata={"help": "With LoRA: save the merged model beside the adapter; a next stage needs it."}
    )

    def __post_init__(self):
        super().__post_init__()
        if self.model_name_or_path == "":
            raise ValueError("model_name_or_path is empty: give a folder or a hub id, or null to build the model.")
        name, revision = split_revision(self.model_name_or_path or "")
        if revision is not None:
            if self.model_revision not in ("main", None, revision):
                raise ValueError(
                    f"model_name_or_path={self.model_name_or_path}, model_revision={self.model_revision}: "
                    "two revisions; give one of them."
                )
            self.model_name_or_path, self.model_revision = name, revision
        if self.model_revision not in ("main", None) and Path(self.model_name_or_path or ".").exists():
            where = f"folder {self.model_name_or_path}" if self.model_name_or_path else "model that is built"
            raise ValueError(f"model_revision={self.model_revision}: a {where} has no revisions; leave it out.")
        if self.build is not None and not callable(self.build):
            raise ValueError(f"build={self.build}: {{_target_: <function>, _partial_: true}} is needed, or null.")
        if self.chat_template is not None:
            template(self.chat_template)

    def checkpoint(self, cache: Path) -> str:
        """The path or hub id that TRL loads; a `build` model is made below `cache` on first use.

        Adapters are merged into their base, in a folder beside `cache`: what TRL trains is a whole model.
        """
        if self.model_name_or_path:
            adapters = adapter_folder(self.model_name_or_path, self.model_revision)
            if adapters is None:
                return self.model_name_or_path
            return _made(cache.parent / f"merged-{_content(adapters)}", lambda folder: _merge(adapters, folder))
        if self.build is None:
            raise ValueError("model.model_name_or_path is empty: give a folder or a hub id.")
        return _made(cache, self.build)

    def tokenizer(self, checkpoint: str) -> PreTrainedTokenizerBase:
        """The checkpoint's tokenizer, with a pad token, an end-of-sequence token and a chat template.

        Raises ValueError when it has no chat template and none is configured: a guessed one would train the wrong text.
        So it does without an end-of-sequence token: no policy would ever stop.
        """
        tokenizer = load_tokenizer(checkpoint, self.model_revision)
        if tokenizer.eos_token is None:
            raise ValueError(
                f"model.model_name_or_path={checkpoint}: its tokenizer has no eos_token, so no reply would end; "
                "give one in its tokenizer_config.json."
            )
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        if self.chat_template is not None:
            tokenizer.chat_template = template(self.chat_template)
        if tokenizer.chat_template is None:
            known = ", ".join(sorted(path.stem for path in TEMPLATES.glob("*.jinja")))
            raise ValueError(
                f"model.model_name_or_path={checkpoint}: its tokenizer has no chat template; "
                f"give model.chat_template=<file.jinja> or one of {known}."
            )
        return tokenizer

    def policy(self, path: str, **settings: Any) -> PreTrainedModel:
        """A model to sample from, as `pretrained.load_policy` reads it, with the data type and revision of these."""
        return load_policy(path, self.model_revision, dtype=self.dtype, **settings).eval()

    def trainer_arguments(self) -> dict[str, Any]:
        """`peft_config` and `quantization_config` as TRL's trainers take them."""
        peft = trl.get_peft_config(self)
        if peft is not None and self.model_revision != "main":
            peft.revision = self.model_revision  # with it the base is loaded again, to merge
        return {"peft_config": peft, "quantization_config": trl.get_quantization_config(self)}

    def load_arguments(self) -> dict[str, Any]:
        """`model_init_kwargs` of TRL's config classes."""
        chosen = {"dtype": self.dtype, "attn_implementation": self.attn_implementation, "revision": self.model_revision}
        return {key: value for key, value in chosen.items() if value is not None}


def _made(folder: Path, make: Any) -> str:
    """The folder that `make(folder)` fills, on first use."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not (folder / ".built").exists():  # written last: a build that was killed is made again
            make(folder)
            (folder / ".built").touch()
    return str(folder)


def _merge(adapter: str, folder: Path) -> None:
    merge_adapter(Path(adapter), folder)
    load_tokenizer(adapter).save_pretrained(folder)


def _content(adapter: str) -> str:
    """SHA-256 (16 hex digits) of an adapter's files."""
    files = sorted(Path(adapter).glob("adapter_*"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def template(name: str) -> str:
    """Text of a chat template: the name of a file in `rlhf_trl_ext/chat_templates` without .jinja, or a path.

    Raises ValueError for a file that does not exist, is empty, or is no Jinja.
    """
    path = TEMPLATES / f"{name}.jinja"
    path = path if path.exists() else Path(name).expanduser()
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in TEMPLATES.glob("*.jinja")))
        raise ValueError(f"model.chat_template={name}: no such file; allowed are {known}, or a path to a .jinja file.")
    text = path.read_text()
    if not text.strip():
        raise ValueError(f"model.chat_template={name} is empty, so every chat would be; give a template.")
    try:
        _compile_jinja_template(text)
    except jinja2.TemplateError as error:
        raise ValueError(f"model.chat_template={name} is no Jinja template ({error}); mend it.") from error
    return text
