"""Layout: the names of the files in a run folder. No other module knows them.

config.toml                 the recipe that the run was made from, with every default filled in
tasks.json                  the names of the meta-train tasks
metrics.jsonl               one line per outer step
checkpoints/                `last` and `best`: safetensors and JSON, with hashes
encoder/                    the trained encoder, a plain Hugging Face folder
delta.safetensors           of a compact run, in place of encoder/: how the encoder differs from the untouched one
seen.npy                    of a compact run: fingerprints of the texts that it was meta-trained on
meta_learner.safetensors    what the method learned beside the encoder; a run that has it is finished
manifest.json               the SHA-256 of the files that predictions follow from
results.json                the figures of an evaluation
report.html, plots/         the page of the run and its plots
README.md                   the model card
"""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from quickstudy.errors import RunError

PRIOR = "prior"  # the name of the run that comes with the package
PRIOR_FOLDER = Path(str(files("quickstudy"))) / "priors" / "minilm"
RESULTS, REPORT, PLOTS = "results.json", "report.html", "plots"  # comparisons have files of these names too


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The paths of the files of a run.

    Attributes:
        folder: The run folder.

    >>> RunFiles(Path("runs/first")).config.as_posix()
    'runs/first/config.toml'
    """

    folder: Path

    @property
    def config(self) -> Path:
        """The resolved recipe."""
        return self.folder / "config.toml"

    @property
    def tasks(self) -> Path:
        """The names of the meta-train tasks."""
        return self.folder / "tasks.json"

    @property
    def metrics(self) -> Path:
        """The log: one line per outer step."""
        return self.folder / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def encoder(self) -> Path:
        """The trained encoder."""
        return self.folder / "encoder"

    @property
    def delta(self) -> Path:
        """How the trained encoder differs from the untouched one, in a compact run."""
        return self.folder / "delta.safetensors"

    @property
    def seen(self) -> Path:
        """Fingerprints of the texts that a compact run was meta-trained on."""
        return self.folder / "seen.npy"

    @property
    def learned(self) -> Path:
        """What the method learned beside the encoder."""
        return self.folder / "meta_learner.safetensors"

    @property
    def results(self) -> Path:
        """The figures of an evaluation."""
        return self.folder / RESULTS

    @property
    def report(self) -> Path:
        """The page of the run."""
        return self.folder / REPORT

    @property
    def plots(self) -> Path:
        """The folder of the plots."""
        return self.folder / PLOTS

    @property
    def card(self) -> Path:
        """The model card."""
        return self.folder / "README.md"

    @property
    def exist(self) -> bool:
        """Whether the folder is a run folder."""
        return self.config.is_file()

    def check_exist(self) -> None:
        """Raise `RunError` unless the folder is a run folder."""
        if not self.exist:
            raise RunError("this is not a run folder", where=str(self.folder), fix="Make one with: quickstudy pretrain")


def find_run_folder(name: str | Path) -> Path:
    """Return the folder that stands for a run: `prior` is the run in the package, unless a folder has that name."""
    return PRIOR_FOLDER if str(name) == PRIOR and not Path(name).exists() else Path(name)


def choose_run_folder(out: str | Path | None, source: str | Path | None, name: str) -> Path:
    """Return the folder of a run.

    Args:
        out: The folder that the user asks for, if any.
        source: What the user gives as the recipe; a run folder stands for itself.
        name: The name of the recipe, which names the folder if nothing else does.

    >>> choose_run_folder(None, "recipes/first.toml", "first").as_posix()
    'runs/first'
    """
    if out is not None:
        return Path(out)
    if source is not None and RunFiles(Path(source)).exist:
        return Path(source)
    return Path("runs") / name
