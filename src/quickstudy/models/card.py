"""Card: the README.md of a saved model; what the model is, its labels, and how it is opened with which package.

It names no texts and no folders of the machine. It is not in the manifest, so it may be edited.
"""

from typing import Protocol

from quickstudy.models.learned import Learned
from quickstudy.tasks.task import Kind


class Described(Protocol):
    """What a card says of a model; adapted models and exported ones have it."""

    @property
    def method(self) -> str:
        """Name of the method that made it."""
        ...

    @property
    def label_names(self) -> tuple[str, ...]:
        """N names; empty for regression."""
        ...

    @property
    def kind(self) -> Kind:
        """Classification or regression."""
        ...

    @property
    def pair(self) -> bool:
        """Whether it reads two texts."""
        ...

    @property
    def learned(self) -> Learned | None:
        """What it was adapted from, if that is known."""
        ...


def model_card(model: Described, *, sequence_classifier: bool, modules: bool) -> str:
    """Return the card of a model folder.

    Args:
        model: The model.
        sequence_classifier: Whether `encoder/` is the whole model as a standard sequence classifier.
        modules: Whether sentence-transformers opens the folder.
    """
    if sequence_classifier:
        encoder = [
            "`encoder/` is the whole model as a standard sequence classifier. Without quickstudy:",
            "",
            "```python",
            "from transformers import pipeline",
            'classifier = pipeline("text-classification", model="THIS_FOLDER/encoder")',
            "```",
        ]
    else:
        encoder = [
            "`encoder/` is the encoder alone, a plain Hugging Face folder: `AutoModel.from_pretrained` opens it.",
            "It holds no classifier. So neither this folder nor `encoder/` can predict through transformers'",
            '`pipeline("text-classification")`; `quickstudy export --to transformers` may write one that can.',
        ]
    if modules:
        encoder.append('`SentenceTransformer("THIS_FOLDER").encode(texts)` gives the logits, without quickstudy.')
    return _card(model, "from quickstudy import load_model", "load_model", encoder)


def exported_card(model: Described, *, int8: bool) -> str:
    """Return the card of a folder that `quickstudy export` wrote.

    Args:
        model: The model.
        int8: Whether its weights were rounded to 8 bits.
    """
    output = "numbers" if model.kind == "regression" else "probabilities"
    weights = "8 bits, so it is not quite the original model" if int8 else "32 bits"
    graph = [
        f"`model.onnx` is the whole model, from token ids to {output}. `tokenizer/` makes the token ids.",
        *(["A second output, `logits`, holds what the softmax is taken of."] if model.kind != "regression" else []),
        f"The weights have {weights}.",
    ]
    return _card(model, "from quickstudy.export.onnx_model import OnnxModel", "OnnxModel.load", graph)


def standard_card(model: Described, *, max_length: int) -> str:
    """Return the card of a folder that `quickstudy export --to transformers` wrote.

    Args:
        model: The model.
        max_length: Tokens that it reads of a text.
    """
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            "pipeline_tag: text-classification",
            "tags: [few-shot]",
            "---",
            "# A classifier for transformers",
            "",
            f"quickstudy made it from labelled examples, with the method `{model.method or 'unknown'}`.",
            "It is a standard sequence classifier without code of its own. It gives the logits of the model that it",
            "was made from.",
            "",
            "```python",
            "from transformers import pipeline",
            "",
            'classifier = pipeline("text-classification", model="THIS_FOLDER")',
            f'classifier("a new text", truncation=True, max_length={max_length})',
            "```",
            "",
            "Keep the weights in float32: the last layer computes a mean and a length with very large and very small",
            "numbers.",
            "",
            "## Labels",
            "",
            *([f"- `{_one_line(name)}`" for name in model.label_names] or ["It predicts a number."]),
            "",
            *_learned(model.learned),
        ]
    )


def _card(model: Described, import_line: str, load: str, files: list[str]) -> str:
    what = "A regression model" if model.kind == "regression" else "A classifier"
    reads = "pairs of texts" if model.pair else "single texts"
    second = ' --pair "its second text"' if model.pair else ""
    example = '("a new text", "its second text")' if model.pair else '"a new text"'
    lines = [
        "---",
        "library_name: quickstudy",
        "pipeline_tag: text-classification",
        "tags: [few-shot]",
        "---",
        f"# {what} of {reads}",
        "",
        f"quickstudy made it from labelled examples, with the method `{model.method or 'unknown'}`.",
        "",
        "## Labels",
        "",
        *([f"- `{_one_line(name)}`" for name in model.label_names] or ["It predicts a number."]),
        "",
        *_learned(model.learned),
        "## Use",
        "",
        "```bash",
        f'quickstudy predict THIS_FOLDER "a new text"{second}',
        "```",
        "",
        "```python",
        import_line,
        "",
        f'{load}("THIS_FOLDER").predict([{example}])',
        "```",
        "",
        "## Files",
        "",
        *files,
        "`manifest.json` holds the SHA-256 of the files that predictions follow from. The files are compared with it",
        "when the model is opened. This page may be edited.",
        "",
        "## Limits",
        "",
        "Accuracy after a few labels depends on the examples. Measure it on your own texts before you rely on it.",
        "",
    ]
    return "\n".join(lines)


def _learned(learned: Learned | None) -> list[str]:
    if learned is None:
        return []
    prior = f" on {learned.prior}" if learned.prior else ""
    lines = [f"Method: {learned.method}{prior}.", *learned.lines()]
    return ["## What it learned from", "", *(f"- {line}" for line in lines), ""]


def _one_line(name: str) -> str:
    return " ".join(name.replace("`", "'").split())
