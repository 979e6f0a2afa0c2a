"""Make settings.md: the settings of a recipe. Those of the methods and the outer loop are read from the code.

    python docs/make_settings.py

A test fails if the page is not what this script writes.
"""

import math
from dataclasses import fields
from pathlib import Path

from quickstudy.methods.catalog import METHODS
from quickstudy.methods.setting import Setting, read_meanings, read_settings
from quickstudy.settings import OuterSettings

PAGE = Path(__file__).with_name("settings.md")

_HEAD = """# Settings of a recipe

A recipe is a TOML file with the sections below. On the command line, `--set outer.outer_steps=200` changes one setting.
All numbers are finite. Beside its sections a recipe has a `name`, which names the run folder (`"run"`), and a `seed`,
from which all random numbers follow (0). `quickstudy init` writes a commented recipe for your files.

## The encoder, the tasks and the episodes

The section `[encoder]`:

| setting | default | meaning |
|---|---|---|
| `name` | `"minilm"` | Which encoder: a Hub id, a folder, or `minilm`. |
| `revision` | main branch | Of an encoder on the Hub: a branch, a tag or a commit. A run keeps the commit it loaded. |
| `max_length` | `128` | Tokens of a text that are read. Longer texts are cut, which `adapt` and `predict` say. |
| `pooling` | `"mean"` | How token states become one vector: `mean`, `cls` or `pooler`. |
| `pair` | by encoder | How two texts are read: `separate` (sentence encoders) or `joint` (all others). |
| `normalize` | by encoder | Whether vectors have unit length, as those of sentence encoders do. |
| `from_scratch` | none | A new encoder in place of `name`; see below and [pretraining.md](pretraining.md). |

The section `[encoder.from_scratch]` makes a tokenizer and a small BERT:

| setting of a new encoder | default | meaning |
|---|---|---|
| text | needed | The text that the tokenizer is trained on: a file, a folder, `python-docs`, or `hub:ID`. |
| vocabulary | 8000 | Tokens of the vocabulary, 100 or more. |
| layers | 4 | Transformer layers. |
| hidden_size | 256 | Hidden size, a multiple of `heads`. |
| heads | 4 | Attention heads of a layer. |

The section `[tasks]` says what is drawn from, and how often:

| setting of the tasks | default | meaning |
|---|---|---|
| train | needed | References to the tasks of meta-training. |
| validation | none | References to the tasks of meta-validation. |
| weights | all tasks alike | How often an episode is drawn from each reference in `train`: numbers of 0 or more. |
| weights_end | as `weights` | The same at the end of the training. The weights move there in a straight line. |

The section `[episodes]` says how large an episode is. Where a range is given, such as `[2, 5]`, each episode draws its
size from it:

| setting of the episodes | default | meaning |
|---|---|---|
| n_way | [2, 5] | Classes of an episode, N. |
| k_shot | [2, 8] | Support examples of each class, K. |
| n_query | 4 | Query examples of each class. |
| weighting | "uniform" | How often each task is drawn: `uniform`, by `size`, or between both: `temperature`. |
| temperature | 2.0 | Of `temperature`: 1 is like `size`, and a large number is like `uniform`. |

The section `[episodes.names]` says in which share of the episodes the label names are changed, for methods that read
them. A share is a number from 0 to 1:

| setting of the names | default | meaning |
|---|---|---|
| dropped | 0.0 | The share in which no label has a name. |
| shuffled | 0.0 | The share in which each label has the name of another one. |
| coded | 0.0 | The share in which each label has a code that says nothing. |

The section `[language]` adds masked-language modelling on text; see [pretraining.md](pretraining.md):

| setting of masked-language modelling | default | meaning |
|---|---|---|
| text | that of the new encoder | A file, a folder, `python-docs`, or `hub:ID`. |
| share | 0.5 | Which share of the outer steps it takes: above 0, at most 1. The others are of episodes. |
| batch_size | 32 | Passages of a step. |
| masked | 0.15 | Which share of the tokens is masked: above 0, below 1. |
| head_lr | as `outer_lr` | Peak rate of the head, which begins at random, beside an encoder that needs a low rate. |

## The outer loop

The section `[outer]`:

| setting of the outer loop | default | meaning |
|---|---|---|
{outer}
## The methods

The section `[method]` names a method (`name = "protonet"`) and holds its settings. What each method is good for, its
equation and an example are in its docstring, in `quickstudy/methods/catalog`.

## The inner loop

Most methods with an inner loop share these settings. Each method below lists its defaults.

| setting | values | meaning |
|---|---|---|
"""


def write_page() -> str:
    """Return the page."""
    inner = read_settings(METHODS["maml"]).values()
    rows = "".join(f"| `{s.name}` | {_values(s)} | {s.meaning} |\n" for s in inner if s.group)
    return _HEAD.replace("{outer}", _outer_rows()) + rows + "".join(_section(name) for name in METHODS)


def _outer_rows() -> str:
    meanings, defaults = read_meanings(OuterSettings.__doc__ or ""), OuterSettings()
    shown = {field.name: getattr(defaults, field.name) for field in fields(OuterSettings)}
    return "".join(
        f"| `{name}` | {'none' if default is None else f'`{_toml(default)}`'} | {meanings[name]} |\n"
        for name, default in shown.items()
    )


def _section(name: str) -> str:
    title = (METHODS[name].__doc__ or "").splitlines()[0]
    settings = read_settings(METHODS[name]).values()
    shared = [f"`{s.name} = {_toml(s.default)}`" for s in settings if s.group and s.default is not None]
    listed = [_row(s) for s in settings if not s.group]
    blocks = [f"## `{name}`", title]
    if shared:
        blocks.append(f"Inner loop: {', '.join(shared)}.")
    if listed:
        blocks.append("| setting | values | default | meaning |\n|---|---|---|---|\n" + "\n".join(listed))
    if not settings:
        blocks.append("It has no settings.")
    return "\n" + "\n\n".join(blocks) + "\n"


def _row(setting: Setting) -> str:
    default = "-" if setting.default is None else f"`{_toml(setting.default)}`"
    return f"| `{setting.name}` | {_values(setting)} | {default} | {setting.meaning} |"


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _values(setting: Setting) -> str:
    """Return what a setting can be, in words."""
    if setting.words:
        return " or ".join(f"`{_toml(word)}`" for word in setting.words)
    if str in setting.kinds:
        return "a word"
    number = "a number" if float in setting.kinds else "a whole number"
    if setting.most < math.inf:
        return f"{number} from {0 if setting.zero else 1} to {setting.most:,}"
    return f"{number}, 0 or more" if setting.zero else f"{number} above 0"


if __name__ == "__main__":
    PAGE.write_text(write_page(), encoding="utf-8")
