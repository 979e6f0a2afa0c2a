"""From scratch: does it help to train a new encoder on episodes of its text, beside masked-language modelling?

    python benchmarks/from_scratch.py OUT --tasks REF ... [--recipe recipes/scratch_python_docs.toml] [--seeds 0,1,2]
        [--set outer.outer_steps=9000 ...] [--shots 4,8] [--draws 10] [--limit 300]

Two arms for each seed: the recipe as it is, and the same with every step of masked-language modelling. The second has
as many steps as give it the same number of operations, which are counted for a step of each kind. Both are compared, on
tasks that neither has seen, with the same encoder untouched, with MiniLM, and with TF-IDF and logistic regression on
the same support sets. OUT holds the runs, the comparison with its page, and `summary.json`: the mean accuracy of each
arm, the paired difference of each seed with its interval, and the perplexities. What is there is not computed again.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch.utils.flop_counter import FlopCounterMode

import quickstudy
from quickstudy.build import build
from quickstudy.comparison.compare import compare
from quickstudy.comparison.plan import plan_comparison
from quickstudy.config import Recipe, load_recipe
from quickstudy.evaluation.protocol import Protocol
from quickstudy.evaluation.trial import PlannedTask, Trial
from quickstudy.runs import Run
from quickstudy.storage.files import write_json
from quickstudy.tasks.split import Example
from quickstudy.training.meta_batch import MetaBatch
from quickstudy.training.outer import meta_parameters

STEPS_COUNTED = 6  # steps of each kind whose operations are counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tasks", nargs="+", required=True)
    parser.add_argument("--recipe", default="recipes/scratch_python_docs.toml")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--shots", default="4,8")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--limit", type=int, default=300)
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    with_episodes, steps = load_recipe(options.recipe, options.settings), 0
    if with_episodes.language is None:
        parser.error("the recipe has no section [language]")
    runs: dict[str, Path] = {}
    for seed in seeds:
        settings = [*options.settings, f"seed={seed}"]
        runs[f"episodes-{seed}"] = train(options.recipe, settings, options.out / f"episodes-{seed}")
        steps = steps or equal_steps(with_episodes)
        alone = [*settings, "language.share=1.0", f"outer.outer_steps={steps}"]
        runs[f"language-{seed}"] = train(options.recipe, alone, options.out / f"language-{seed}")
    protocol = Protocol(
        shots=tuple(int(shots) for shots in options.shots.split(",")), draws=options.draws, limit=options.limit
    )
    # The untouched encoder of the recipe comes with the recipe itself; MiniLM is that of the named methods.
    learners = [*(str(run) for run in runs.values()), options.recipe, "protonet", "linear-probe"]
    folder = options.out / "comparison"
    results = compare(learners, options.tasks, folder, protocol=protocol)
    planned = plan_comparison(learners, options.tasks, folder, protocol, "minilm").tasks
    scores = {
        f"{draw.learner}|{draw.task}|{draw.shots}|{draw.draw}": draw.score for draw in results.draws
    } | tfidf_scores(planned)
    write_json(options.out / "summary.json", summarise(scores, seeds, runs, steps))
    print((options.out / "summary.json").read_text(encoding="utf-8"))


def train(recipe: str, settings: Sequence[str], folder: Path) -> Path:
    """Meta-train into a folder, or go on with what is there."""
    if not (folder.exists() and Run.open(folder).finished):
        quickstudy.pretrain(recipe, folder, overrides=settings, resume=folder.exists())
    return folder


def equal_steps(recipe: Recipe) -> int:
    """Return how many steps of masked-language modelling take as many operations as the steps of a recipe."""
    built = build(recipe)
    language, outer = built.language, recipe.outer
    assert language
    meta_parameters(built.learner, outer.trains)
    accelerator = Accelerator(mixed_precision=outer.mixed_precision)
    built.learner.to(accelerator.device)
    batch = MetaBatch(
        built.learner, built.sampler, outer.meta_batch_size, outer.outer_steps, accelerator, outer.max_length
    )
    operations: dict[str, float] = {}
    for name in ("language", "episodes"):
        with FlopCounterMode(display=False) as counter:
            for step in range(STEPS_COUNTED):
                totals = torch.zeros(3, device=accelerator.device)
                if name == "language":
                    language.add(totals, step, accelerator, scale=1.0)
                else:
                    batch.add(totals, step)
        operations[name] = float(counter.get_total_flops())
    share = language.settings.share
    return round(outer.outer_steps * (share + (1 - share) * operations["episodes"] / operations["language"]))


def tfidf_scores(planned: Sequence[PlannedTask]) -> dict[str, float]:
    """Return the accuracy of TF-IDF and logistic regression on each support set of tasks of classes."""
    return {
        f"tf-idf|{task.name}|{trial.shots}|{trial.draw}": tfidf_score(trial)
        for task in planned
        for trial in task.trials
        if trial.label_names
    }


def tfidf_score(trial: Trial) -> float:
    """Return the accuracy on one support set."""
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)), LogisticRegression(max_iter=1000))
    model.fit([joined(example) for example in trial.support], [example.label for example in trial.support])
    predicted = model.predict([joined(example) for example in trial.tests])
    return float(np.mean(predicted == np.array([example.label for example in trial.tests])))


def joined(example: Example) -> str:
    """Return the texts of an example as one."""
    return f"{example.text} {example.text_pair or ''}"


def summarise(
    scores: Mapping[str, float], seeds: Sequence[int], runs: Mapping[str, Path], steps: int
) -> dict[str, Any]:
    """Return the means over tasks, the paired differences of the arms by seed, and the perplexities."""
    by_learner: dict[str, dict[str, list[float]]] = {}
    for key, score in scores.items():
        learner, task, shots, _ = key.rsplit("|", 3)
        by_learner.setdefault(f"{learner}, {shots} shots", {}).setdefault(task, []).append(score)
    means = {name: statistics.mean(map(statistics.mean, tasks.values())) for name, tasks in by_learner.items()}
    differences = {}
    for shots in dict.fromkeys(name.rpartition(", ")[2] for name in by_learner):
        a, b = (
            {task: statistics.mean(statistics.mean(by_learner[f"{arm}-{seed}, {shots}"][task]) for seed in seeds)
             for task in by_learner[f"{arm}-{seeds[0]}, {shots}"]}
            for arm in ("episodes", "language")
        )  # fmt: skip
        differences[shots] = interval([a[task] - b[task] for task in a])
    return {
        "steps of masked-language modelling alone": steps,
        "mean accuracy": means,
        "episodes minus language, mean over seeds": differences,
        "perplexity": {name: last_perplexity(run) for name, run in runs.items()},
    }


def interval(differences: Sequence[float]) -> dict[str, float]:
    """Return the mean of differences over tasks, and its 95 % interval by 10,000 bootstrap samples of tasks."""
    values, random = np.array(differences), np.random.default_rng(0)
    means = values[random.integers(len(values), size=(10_000, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return {"tasks": len(values), "mean": float(values.mean()), "low": float(low), "high": float(high)}


def last_perplexity(folder: Path) -> float | None:
    """Return the perplexity that a run ended with."""
    measured = [record.perplexity for record in Run.open(folder).metrics() if record.perplexity is not None]
    return measured[-1] if measured else None


if __name__ == "__main__":
    main()
