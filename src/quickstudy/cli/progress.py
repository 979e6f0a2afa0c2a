"""Progress: live bars on a terminal, plain lines when the output is a file or a pipe."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from quickstudy.cli.terminal import say
from quickstudy.report.number import counted, shots_text
from quickstudy.visible import visible

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from quickstudy.evaluation.record import Draw
    from quickstudy.training.record import StepRecord

_PLAIN_SECONDS = 10.0  # between two plain lines that carry nothing but progress


class _Bar:
    """A rich bar on a terminal's standard error; plain lines where there is none; nothing when quiet.

    Args:
        title: What is done.
        total: How much of it; None if that is not known.
        quiet: Show nothing.
        plain_to: Where plain lines go; None stands for standard output.
    """

    def __init__(self, title: str, total: int | None, *, quiet: bool, plain_to: TextIO | None = None) -> None:
        self._plain_to = plain_to
        self._console = Console(stderr=True, highlight=False)
        self.quiet = quiet
        self.live = self._console.is_terminal and not quiet
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not self.live,
        )
        self._task = self._progress.add_task(title, total=total, note="")
        self._spoken = 0.0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, done: int, note: str, plain: str, *, important: bool = False, total: int | None = None) -> None:
        """Move the bar, or print a plain line if it is important or the last one is a while ago."""
        if total is not None:
            self._progress.update(self._task, total=total)
        self._progress.update(self._task, completed=done, note=escape(visible(note)))
        if not self.live and not self.quiet and (important or time.monotonic() - self._spoken > _PLAIN_SECONDS):
            self._spoken = time.monotonic()
            say(plain, file=self._plain_to)


class TrainingProgress(_Bar):
    """Loss at every outer step, meta-validation, tasks per second, time left."""

    def __init__(self, steps: int, *, quiet: bool) -> None:
        super().__init__("meta-training", steps, quiet=quiet)
        self._steps = steps
        self._means: dict[str, float] = {}  # of the losses so far, by their names
        self._began: tuple[int, float] | None = None  # step and seconds of the first record, for the time left
        self.best: float | None = None

    def step(self, record: "StepRecord") -> None:
        """Show one outer step."""
        if record.validation is not None:
            self.best = record.validation if self.best is None else max(self.best, record.validation)
        score = "" if self.best is None else f"  validation {100 * self.best:.1f} %"
        if record.step == 0:
            self.show(0, score, f"step 0/{self._steps}{score}", important=True)
            return
        loss, name = (record.loss, "loss") if record.mlm_loss is None else (record.mlm_loss, "masked-language loss")
        mean = self._means[name] = 0.95 * self._means.get(name, loss) + 0.05 * loss
        began = self._began = self._began or (record.step - 1, record.seconds)
        each = (record.seconds - began[1]) / max(1, record.step - began[0] - 1)
        left = each * (self._steps - record.step)
        speed = "" if record.mlm_loss is not None else f"  {record.episodes_per_second:.2f} episodes/s"
        note = f"{name} {loss:.3f} (mean {mean:.3f}){speed}{score}"
        plain = (
            f"step {record.step}/{self._steps}  {name} {loss:.4f}  mean {mean:.4f}  "
            f"lr {record.lr:.2e}{speed}  left {left:.0f} s"
        )
        if record.validation is not None:
            plain += f"  validation {100 * record.validation:.1f} %"
        if record.perplexity is not None:
            plain += f"  perplexity {record.perplexity:.1f}"
        self.show(record.step, note, plain, important=True)


class DrawProgress(_Bar):
    """Finished draws of an evaluation."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__("evaluating", None, quiet=quiet)
        self._done = 0

    def draw(self, draw: "Draw") -> None:
        """Count one finished draw."""
        self._done += 1
        note = f"{draw.task}, {shots_text(draw.shots)}, {draw.learner}"
        self.show(self._done, note, f"{counted(self._done, 'draw')}: {note}")


class CellProgress(_Bar):
    """Finished cells of a comparison."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__("comparing", None, quiet=quiet)

    def cell(self, done: int, total: int, what: str) -> None:
        """Show what is finished."""
        self.show(done, what, f"{done}/{total} cells: {what}", total=total)


class RowProgress(_Bar):
    """Rows of a file that are labelled."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__("labelling", None, quiet=quiet, plain_to=sys.stderr)
        self._began: tuple[int, float] | None = None  # rows and time of the first call, for the rate

    def rows(self, done: int, total: int) -> None:
        """Show how many rows are written."""
        now = time.monotonic()
        first, began = self._began = self._began or (done, now)
        rate = f"{(done - first) / (now - began):,.0f} rows/s" if done > first and now > began else ""
        self.show(done, rate, f"{done:,}/{total:,} rows  {rate}".rstrip(), total=total)


class FinetuneProgress(_Bar):
    """Updates of a full fine-tuning."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__("fine-tuning", None, quiet=quiet)

    def callback(self) -> "TrainerCallback":
        """Return a callback for `transformers.Trainer`."""
        from transformers import TrainerCallback

        outer = self

        class Callback(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
                plain = f"update {state.global_step}/{state.max_steps}"
                outer.show(state.global_step, "", plain, total=state.max_steps)

        return Callback()
