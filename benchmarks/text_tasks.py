"""Text tasks: how fast and in how much memory a large text gives episodes.

    python benchmarks/text_tasks.py SOURCE [--megabytes 1000] [--episodes 3000] [--out benchmarks/text_tasks.json]

SOURCE is a file or folder of real text, or `python-docs`. It is made longer, to a single file of plain text of the size
that is asked for: passages of it follow each other at random, and in each sentence one word is replaced by another of
the source, so that sentences do not repeat. One process then reads the file for the first time, a second one opens it
and draws episodes on one thread. Memory is the largest resident size of each process, and beside it that of a process
that has only imported the same modules. Every episode is checked: labels are balanced, masked words are gone, and no
text is in both sets; and a second process draws the same episodes.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from records import TextTasks, write

from quickstudy.data.reference import load_corpus, load_tasks
from quickstudy.data.text.documents import read_documents
from quickstudy.data.text.python_docs import PYTHON_DOCS, read_python_docs
from quickstudy.data.text.sentences import MASK, has_word, split_sentences
from quickstudy.seeding import rng
from quickstudy.tasks.episode import Episode, EpisodeSpec
from quickstudy.tasks.sampler import EpisodeSampler
from quickstudy.versions import versions

MOST_SENTENCES = 200_000  # of the source
SPEC = EpisodeSpec((2, 5), (1, 8), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--megabytes", type=float, default=1000)
    parser.add_argument("--episodes", type=int, default=3000)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--step", choices=("imports", "index", "sample"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(run_step(options.step, options.source, options.episodes)))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "large.txt"
        os.environ["QUICKSTUDY_CACHE"] = str(Path(folder) / "cache")
        write_long(options.source, file, int(options.megabytes * 1e6))
        steps = {name: in_process(name, file, options.episodes) for name in ("imports", "index", "sample")}
        again = in_process("sample", file, options.episodes)
        size = file.stat().st_size / 1e6
    index, sample = steps["index"], steps["sample"]
    result = TextTasks(
        versions=versions(),
        megabytes=round(size, 1),
        sentences=index["sentences"],
        tasks=index["tasks"],
        index_s=index["seconds"],
        index_cpu_s=index["cpu"],
        index_mib=index["mib"],
        open_s=sample["opened"],
        episodes=options.episodes,
        episodes_per_s=options.episodes / sample["seconds"],
        episodes_per_cpu_s=options.episodes / sample["cpu"],
        sample_mib=sample["mib"],
        imports_mib=steps["imports"]["mib"],
        same_again=sample["hash"] == again["hash"],
    )
    write(options.out, result)
    print(json.dumps(asdict(result), indent=2))


def write_long(source: str, file: Path, size: int) -> None:
    """Write a long text of passages of a shorter one, in whose sentences a word is replaced."""
    documents = read_python_docs() if source == PYTHON_DOCS else read_documents(Path(source))
    short = list(islice((sentence for each in documents for sentence in split_sentences(each.text)), MOST_SENTENCES))
    random, written = rng(0, "long text"), 0
    words = sorted({word for sentence in short[:20_000] for word in sentence.split() if word.isalpha()})
    with file.open("w", encoding="utf-8") as out:
        while written < size:
            for start in random.integers(len(short), size=1000).tolist():
                changed = [replace_word(sentence, words, random) for sentence in short[start : start + 8]]
                written += out.write(" ".join(changed) + "\n\n")


def replace_word(sentence: str, words: list[str], random: np.random.Generator) -> str:
    """Return a sentence with one of its words replaced."""
    parts = sentence.split(" ")
    place, other = (int(value * size) for value, size in zip(random.random(2), (len(parts), len(words)), strict=True))
    parts[place] = words[other]
    return " ".join(parts)


def in_process(step: str, file: Path, episodes: int) -> dict[str, Any]:
    """Run a step in a process of its own, on one thread, and return what it measured."""
    command = [sys.executable, __file__, str(file), "--step", step, "--episodes", str(episodes)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(command, env=os.environ | threads, check=True, stdout=subprocess.PIPE, text=True)
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return values


def run_step(step: str, source: str, episodes: int) -> dict[str, Any]:
    """Read the text for the first time, or draw episodes from it, or do nothing."""
    values: dict[str, Any] = {}
    began, cpu = time.perf_counter(), time.process_time()
    if step == "index":
        values = {"sentences": len(load_corpus(source)), "tasks": len(load_tasks(f"text:{source}"))}
    elif step == "sample":
        sampler = EpisodeSampler(load_tasks(f"text:{source}"), SPEC, seed=0)
        values = {"opened": time.perf_counter() - began}
        began, cpu = time.perf_counter(), time.process_time()
        drawn = [sampler[index] for index in range(episodes)]
    values |= {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
    values["mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if step == "sample":
        for episode in drawn:
            check(episode)
        values["hash"] = sha256(repr(drawn).encode()).hexdigest()
    return values


def check(episode: Episode) -> None:
    """Check what holds of every episode."""
    for rows in (episode.support, episode.query):
        assert len(set(Counter(row.label for row in rows).values())) == 1, f"{episode.task}: labels are not balanced"
    sets = [{text for row in rows for text in (row.text, row.text_pair)} for rows in (episode.support, episode.query)]
    assert sets[0] & sets[1] <= {None}, f"{episode.task}: a text is in both sets"
    for row in (*episode.support, *episode.query):
        if "smlmt" in episode.task or "cloze" in episode.task:
            assert MASK in row.text, episode.task
            assert not has_word(row.text, episode.label_names[int(row.label or 0)]), episode.task


if __name__ == "__main__":
    main()
