"""What a run writes down while it trains: lines of its log, checkpoints, and its result."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import jax

from deit_jax.config.keys import leaves_by_key
from deit_jax.evaluation.metrics import Metrics
from deit_jax.runs.checkpoints.directory import OWES_EVALUATION
from deit_jax.runs.checkpoints.manager import Checkpoints
from deit_jax.runs.checkpoints.manifest import SKIPPED_IN_A_ROW
from deit_jax.runs.directory import RunDirectory
from deit_jax.runs.log import RunLog
from deit_jax.sheets import seen_sheet
from deit_jax.training.clock import Clock
from deit_jax.training.continuation import best_of_run, count_lost_lines
from deit_jax.training.example import Batch
from deit_jax.training.learning_rate import learning_rate
from deit_jax.training.progress import Progress
from deit_jax.training.result import make_result
from deit_jax.training.roll_backs import RollBack, RollBacks
from deit_jax.training.seen import see
from deit_jax.training.setup import Setup
from deit_jax.training.state import METRICS, TrainState


def open_log(setup: Setup, run: RunDirectory, resume_step: int, owes_evaluation: bool) -> RunLog:
    """Open the log of a run; see `RunLog`."""
    config = setup.config
    judged = f"eval/{config.evaluation.weights}/{setup.inference_head}"
    return RunLog(
        run.path,
        resume_step=resume_step,
        owes_evaluation=owes_evaluation,
        tensorboard=config.log.tensorboard,
        hyperparameters=leaves_by_key(asdict(config)),
        measures=[f"{judged}/top1", f"{judged}/loss"],
    )


class Recorder:
    """Writes what happens to the log, the screen and the checkpoints of a run.

    Attributes:
        roll_backs: those that it has gone through so far.
    """

    def __init__(
        self,
        setup: Setup,
        run: RunDirectory,
        checkpoints: Checkpoints,
        log: RunLog,
        progress: Progress,
        clock: Clock,
        meta: Mapping[str, Any],
    ) -> None:
        """Begin where a checkpoint left off.

        Args:
            setup: of the run.
            run: its open directory.
            checkpoints: in it.
            log: in it, open.
            progress: what people see.
            clock: of the run.
            meta: notes of the checkpoint that is gone on from; {} at a start.
        """
        self.roll_backs = RollBacks(meta)
        self._setup, self._config = setup, setup.config
        self._run, self._checkpoints, self._log = run, checkpoints, log
        self._progress, self._clock = progress, clock
        self._failed_saves = int(meta.get("failed_saves", 0))
        # Only the first process has the log.
        self._first = jax.process_index() == 0
        self._lost_lines = (
            count_lost_lines(meta, log.lines, run.path / "metrics.jsonl") if self._first else 0
        )

    def first_batch(self, batch: Batch) -> None:
        """Show some of its images as the network sees them, in a run that one process makes."""
        options = self._config.log
        if not (options.tensorboard and options.images) or jax.process_count() > 1:
            return
        seen = see(batch, self._setup.train_source, self._config, options.images)
        self._log.picture(0, "train/images", seen_sheet(seen))

    def training(self, step: int, state: TrainState, damaged: tuple[int, ...]) -> int:
        """Write the averages since the last line; return how many steps were skipped just now.

        Args:
            step: steps taken.
            state: after it.
            damaged: numbers of the records that were found damaged.

        Returns:
            How many of the last steps in a row were skipped, not being finite.
        """
        self._run.note_first_checkpoint()
        scalars = jax.device_get(
            {name: state[name] for name in ("sums", "skipped", "skipped_in_a_row")}
        )
        count = float(scalars["sums"]["count"])
        values = {
            name: float(scalars["sums"][name]) / count if count else math.nan for name in METRICS
        }
        values["learning_rate"] = float(
            learning_rate(self._config, step - 1, self._setup.steps_per_epoch)
        )
        values["skipped_steps"] = int(scalars["skipped"])
        if self._config.training.roll_backs:
            values["roll_backs"] = len(self.roll_backs.done)
        values["damaged_records"] = len(damaged)
        values["input_wait"] = self._clock.waited()
        speed = self._clock.rate(step) * self._config.training.batch_size
        if not math.isnan(speed):
            values["images_per_second"] = speed
        values["epoch"] = step / self._setup.steps_per_epoch
        self._log.write(step, "train", values)
        self._progress.update(step, values)
        return int(scalars["skipped_in_a_row"])

    def evaluation(self, step: int, result: dict[str, Metrics]) -> None:
        """Write every number to the log and the deciding ones to the screen."""
        head = self._setup.inference_head
        values = {
            f"{name}/{head}/{key}": value
            for name, heads in result.items()
            for head, metrics in heads.items()
            for key, value in metrics.items()
        }
        self._log.write(step, "eval", {"epoch": step / self._setup.steps_per_epoch} | values)
        accuracies = [f"{name} {heads[head]['top1']:.2f} %" for name, heads in result.items()]
        self._progress.message(f"step {step:,}: top-1 of the {head} head: {', '.join(accuracies)}")
        if self._first:
            best = self._best_evaluation()
            self._progress.show_best(best["step"], best["value"])

    def checkpoint(
        self,
        step: int,
        state: TrainState,
        evaluation: dict[str, Metrics] | None,
        *,
        damaged: tuple[int, ...],
        owes_evaluation: bool,
    ) -> None:
        """Save the state, with the deciding accuracy where it was just measured.

        Args:
            step: steps taken.
            state: after it.
            evaluation: of this state, if there was one.
            damaged: numbers of the records that were found damaged.
            owes_evaluation: whether a signal has kept it from being evaluated.
        """
        # Then it is known whether the one before is on disk.
        self._checkpoints.wait()
        meta = {
            "seconds": self._clock.total(),
            "damaged": list(damaged),
            "failed_saves": self._all_failed_saves(),
            "class_names": self._setup.train_source.class_names,
            "epoch": step / self._setup.steps_per_epoch,
            "log_lines": self._log.lines,
            "lost_lines": self._lost_lines,
            **self.roll_backs.notes(),
        }
        if in_a_row := int(jax.device_get(state["skipped_in_a_row"])):
            meta[SKIPPED_IN_A_ROW] = in_a_row
        if self._setup.lessons:
            meta["labels"] = self._setup.lessons.record
        if owes_evaluation:
            meta[OWES_EVALUATION] = True
        metrics = self.deciding(evaluation) if evaluation else None
        self._checkpoints.save(step, state, meta=meta, metrics=metrics)

    def deciding(self, evaluation: dict[str, Metrics]) -> dict[str, float]:
        """Return the metric by which the best checkpoint is chosen."""
        chosen = evaluation[self._config.evaluation.weights]
        return {"top1": chosen[self._setup.inference_head]["top1"]}

    def result(self, state: TrainState, evaluation: dict[str, Metrics]) -> dict[str, Any]:
        """Write `result.json`, by the first process alone, which knows the best evaluation."""
        result = make_result(
            self._setup,
            state,
            evaluation,
            seconds=self._clock.total(),
            failed_saves=self._all_failed_saves(),
            roll_backs=self.roll_backs,
            best=self._best_evaluation() if self._first else {},
        )
        if self._first:
            self._run.write_result(result)
        return result

    def carried(self, roll_back: RollBack) -> dict[str, Any]:
        """Return the notes that hold after it, whatever those of the checkpoint say."""
        labels = {"labels": self._setup.lessons.record} if self._setup.lessons else {}
        return {
            "seconds": self._clock.total(),
            # Those of `Checkpoints`, which stays, are added.
            "failed_saves": self._failed_saves,
            **labels,
            **self.roll_backs.notes(roll_back),
        }

    def _all_failed_saves(self) -> int:
        """Checkpoints of the whole run that could not be written, and were tried again later."""
        return self._failed_saves + self._checkpoints.failed_saves

    def _best_evaluation(self) -> dict[str, Any]:
        """Step and value of the evaluation that decides which checkpoint is the best."""
        metric = f"{self._config.evaluation.weights}/{self._setup.inference_head}/top1"
        return best_of_run(self._run.path, metric, self._lost_lines)
