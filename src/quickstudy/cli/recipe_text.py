"""Recipe text: a commented recipe for tasks that were looked at."""

import json
from collections.abc import Sequence

from quickstudy.cli.survey import Seen, Sizes

_MAX_LENGTH = 128  # tokens, the default of a recipe


def recipe_text(name: str, encoder: str, train: Sequence[Seen], validation: Sequence[Seen], sizes: Sizes) -> str:
    """Return the text of a recipe (TOML)."""
    longest = max(task.longest for task in (*train, *validation))
    cut = f"longer texts are cut; yours have up to {longest} words"
    return f"""\
# A recipe for: quickstudy pretrain. Each line can be changed here, or for one run with --set section.key=value.
name = {_quote(name)}  # the run is written to runs/ under this name

[encoder]
name = {_quote(encoder)}  # minilm, an id on the Hugging Face Hub, or a folder
max_length = {_MAX_LENGTH}  # tokens; {cut}

[method]
name = "protonet"  # prototypical networks: one pass over the examples, nothing to tune
names = "gated"  # label names are read too, as far as training shows that they help

[tasks]
# Folders and files by their whole paths, so that the recipe works from any folder.
train = [
{_listed(train)}]
{_validation(validation)}
[episodes]
# The sizes fit the smallest label of your files.
n_way = {_range(sizes.n_way)}  # labels of an episode
k_shot = {_range(sizes.k_shot)}  # examples of each label to learn from
n_query = {sizes.n_query}  # examples of each label to be scored

[outer]
outer_steps = 200  # `quickstudy pretrain RECIPE --explain` says how long they take
outer_lr = 3e-5
meta_batch_size = 4  # episodes of a step
validate_every = 50  # a checkpoint is written at the same steps
validation_episodes = 25
"""


def _validation(validation: Sequence[Seen]) -> str:
    if not validation:
        note = "With four tasks or more, some should stand here instead: they choose the best step of the run."
        return f"# {note}\nvalidation = []\n"
    note = "These choose the best step of the run; nothing is trained on them."
    return f"# {note}\nvalidation = [\n{_listed(validation)}]\n"


def _listed(tasks: Sequence[Seen]) -> str:
    return "".join(f"  {_quote(task.reference)},  # {_comment(task)}\n" for task in tasks)


def _comment(task: Seen) -> str:
    labels = f"{len(task.rows_per_label)} labels" if task.rows_per_label else "numbers"
    return f"{task.rows} rows, {labels}{', pairs' if task.pair else ''}"


def _range(bounds: tuple[int, int]) -> str:
    low, high = bounds
    return str(low) if low == high else f"[{low}, {high}]"


def _quote(text: str) -> str:
    """Return a TOML string; JSON writes it in the same way."""
    return json.dumps(text, ensure_ascii=False)
