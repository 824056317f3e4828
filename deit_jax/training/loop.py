"""The loop: read a batch, take the step, and now and then log, evaluate and save."""

import contextlib
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from deit_jax.data.options import describe_readers
from deit_jax.data.pipeline import eval_batches, train_batches
from deit_jax.evaluation.evaluate import Metrics, evaluate
from deit_jax.models.functional import count_parameters
from deit_jax.sharding import put_batch, replicated
from deit_jax.training.checkpoint import Checkpoints
from deit_jax.training.checkpoint_directory import saved_steps
from deit_jax.training.initial import load_initial
from deit_jax.training.progress import Progress
from deit_jax.training.refusals import refuse_early
from deit_jax.training.result import best_evaluation, make_result
from deit_jax.training.run_directory import RunDirectory, open_run
from deit_jax.training.run_log import RunLog
from deit_jax.training.schedule import learning_rate, peak_learning_rate
from deit_jax.training.setup import Setup, prepare
from deit_jax.training.state import METRICS, TrainState
from deit_jax.weights.adapt import Fitted

_LOG = logging.getLogger("deit_jax")


class TrainingStopped(RuntimeError):
    """Training cannot go on; the message says why and where the last good state is."""


def train(config: ConfigDict, workdir: str, *, allow_config_change: bool = False) -> dict[str, Any]:
    """Train as the configuration says, or go on from the last checkpoint in `workdir`.

    Args:
        config: validated configuration.
        workdir: directory of this run.
        allow_config_change: continue although the configuration differs from the saved one.

    Returns:
        What `result.json` holds.

    Raises:
        ValueError, FileExistsError, FileNotFoundError: the data, the teacher, the weights to start
            from or the directory are not what the configuration needs.
        TrainingStopped: too many steps in a row were not finite, or all of them.
    """
    repeatable = config.training.repeatable and jax.default_backend() == "gpu"
    kernel_choices = Path(workdir).absolute() / "kernel_choices" if repeatable else None
    # All that can be refused is refused before anything is written: the corrected command works.
    setup = prepare(config, kernel_choices)
    if setup.teacher:
        # What its weights say they are of.
        config.teacher.name = setup.teacher.facts["name"]
    saved = saved_steps(Path(workdir) / "checkpoints")
    names = setup.train_source.class_names
    weights = None if saved else load_initial(config, setup.abstract_state, names)
    refuse_early(setup, max(saved, default=0))
    with open_run(
        workdir, config, allow_config_change=allow_config_change, class_names=names
    ) as run:
        kept = config.checkpoint
        with Checkpoints(
            run.checkpoints,
            keep_latest=kept.keep_latest,
            keep_every=kept.keep_every_steps,
            keep_best=kept.keep_best,
        ) as checkpoints:
            if kernel_choices:
                # All processes wait for each other in `Checkpoints`: the run's directory is there.
                kernel_choices.mkdir(exist_ok=True)
            return _Run(setup, run, checkpoints, weights).go()


class _Run:
    """One stretch of training, from a start or a checkpoint to the end."""

    def __init__(
        self,
        setup: Setup,
        run: RunDirectory,
        checkpoints: Checkpoints,
        weights: Fitted | None,
    ) -> None:
        self.setup, self.config = setup, setup.config
        self.run, self.checkpoints = run, checkpoints
        restored = checkpoints.restore_latest(setup.abstract_state)
        self.state: TrainState = restored.state if restored else setup.initial_state(weights)
        self.load_report = weights.report if weights else None
        self.start = restored.step if restored else 0
        self.clock = _Clock(restored.meta["seconds"] if restored else 0.0)
        # Runs from before these were kept begin to count anew.
        self.damaged: tuple[int, ...] = tuple(restored.meta.get("damaged", ()) if restored else ())
        teacher_params = setup.teacher.params if setup.teacher else {}
        self.teacher_params = jax.device_put(teacher_params, replicated(setup.mesh))

    def go(self) -> dict[str, Any]:
        """Train to the last step and write the result."""
        setup, config = self.setup, self.config
        total = setup.total_steps
        with contextlib.ExitStack() as stack:
            self.log = stack.enter_context(
                RunLog(self.run.path, resume_step=self.start, tensorboard=config.log.tensorboard)
            )
            self.progress = stack.enter_context(Progress(total, start_step=self.start))
            if self.load_report:
                self.progress.message(self.load_report.table())
            self.progress.message(self.describe())
            if setup.teacher and setup.teacher.note:
                self.progress.message(setup.teacher.note)
            batches = stack.enter_context(
                contextlib.closing(
                    train_batches(
                        setup.train_source,
                        setup.train_input,
                        start_step=self.start,
                        num_steps=total,
                        process_index=jax.process_index(),
                        process_count=jax.process_count(),
                        known_damaged=self.damaged,
                    )
                )
            )
            evaluation = None
            if self.start < total:
                self.progress.message("Compiling the train step ...")
            for step in range(self.start + 1, total + 1):
                batch = put_batch(next(batches), setup.mesh)
                self.damaged = batches.damaged_numbers
                self.state = setup.train_step(self.state, self.teacher_params, batch)
                if step == self.start + 1:
                    # The first step compiles; throughput is counted from the second.
                    jax.block_until_ready(self.state["step"])
                    self.progress.message(f"First step after {self.clock.since_start():.1f} s.")
                    self.clock.restart(step)
                evaluation = self.after(step)
            if evaluation is None:
                # Stopped between the last checkpoint and the result: already logged.
                evaluation = self.evaluate()
            result = self.finish(evaluation)
            self.progress.message(self.summary(result))
        return result

    def after(self, step: int) -> dict[str, Metrics] | None:
        """Do what is due after this step; return the evaluation if there was one."""
        last = step == self.setup.total_steps
        if last or step % self.config.log.every_steps == 0:
            self.log_training(step)
        else:
            self.progress.update(step)
        evaluation = None
        if last or self.evaluation_due(step):
            evaluation = self.evaluate()
            self.log_evaluation(step, evaluation)
        if evaluation or step % self.config.checkpoint.every_steps == 0:
            with self.clock.paused():
                self.save(step, evaluation)
        return evaluation

    def evaluation_due(self, step: int) -> bool:
        """Whether a multiple of `evaluation.every_epochs` was passed in this step."""
        interval = self.config.evaluation.every_epochs * self.setup.steps_per_epoch
        return math.floor(step / interval) > math.floor((step - 1) / interval)

    def log_training(self, step: int) -> None:
        """Write the averages since the last line; stop if nothing finite came for too long."""
        scalars = jax.device_get(
            {name: self.state[name] for name in ("sums", "skipped", "skipped_in_a_row")}
        )
        count = float(scalars["sums"]["count"])
        values = {
            name: float(scalars["sums"][name]) / count if count else math.nan for name in METRICS
        }
        values["learning_rate"] = float(
            learning_rate(self.config, step - 1, self.setup.steps_per_epoch)
        )
        values["skipped_steps"] = int(scalars["skipped"])
        values["damaged_records"] = len(self.damaged)
        values["images_per_second"] = self.clock.rate(step) * self.config.training.batch_size
        values["epoch"] = step / self.setup.steps_per_epoch
        self.log.write(step, "train", values)
        self.progress.update(step, values)
        self.stop_if_lost(step, int(scalars["skipped_in_a_row"]))

    def stop_if_lost(self, step: int, in_a_row: int) -> None:
        """Raise if the loss has not been finite for too many steps."""
        if in_a_row < self.config.training.max_skipped_steps:
            return
        raise TrainingStopped(
            f"the loss or gradient was not finite in the last {in_a_row} steps up to step {step}. "
            f"Parameters were left as they were before; the last checkpoint in "
            f"{self.run.checkpoints} is good. Try a lower optimizer.learning_rate, "
            "optimizer.clip_norm=1.0 or model.dtype=float32, in a new workdir."
        )

    def stop_if_nothing_was_learned(self) -> None:
        """Raise if no step of the whole run was taken."""
        skipped, total = int(self.state["skipped"]), self.setup.total_steps
        if skipped < total:
            return
        raise TrainingStopped(
            f"the loss or gradient was not finite in any of the {total:,} steps, so nothing was "
            "learned. Look at augment.mean and std, the data and model.weights; try a lower "
            "optimizer.learning_rate or model.dtype=float32, in a new workdir."
        )

    def evaluate(self) -> dict[str, Metrics]:
        """Evaluate raw and averaged weights on the whole evaluation split."""
        setup, state = self.setup, self.state
        weights = {"raw": (state["params"], state["batch_stats"])}
        if state["ema"]:
            weights["ema"] = (state["ema"]["params"], state["ema"]["batch_stats"])
        with self.clock.paused():
            batches = eval_batches(
                setup.eval_source,
                setup.eval_input,
                process_index=jax.process_index(),
                process_count=jax.process_count(),
            )
            with contextlib.closing(batches):
                return evaluate(setup.eval_step, weights, batches, setup.mesh)

    def log_evaluation(self, step: int, result: dict[str, Metrics]) -> None:
        """Write every number to the log and the deciding ones to the screen."""
        head = self.setup.inference_head
        values = {
            f"{name}/{head}/{key}": value
            for name, heads in result.items()
            for head, metrics in heads.items()
            for key, value in metrics.items()
        }
        self.log.write(step, "eval", {"epoch": step / self.setup.steps_per_epoch} | values)
        accuracies = [f"{name} {heads[head]['top1']:.2f} %" for name, heads in result.items()]
        self.progress.message(f"step {step:,}: top-1 of the {head} head: {', '.join(accuracies)}")
        if jax.process_index() == 0:
            # Only this process has the log that it is read from.
            best = self.best_evaluation()
            self.progress.show_best(best["step"], best["value"])

    def save(self, step: int, evaluation: dict[str, Metrics] | None) -> None:
        """Save the state; with the deciding accuracy where it was just measured."""
        metrics = None
        if evaluation:
            chosen = evaluation[self.config.evaluation.weights]
            metrics = {"top1": chosen[self.setup.inference_head]["top1"]}
        meta = {
            "seconds": self.clock.total(),
            "damaged": list(self.damaged),
            "class_names": self.setup.train_source.class_names,
        }
        self.checkpoints.save(step, self.state, meta=meta, metrics=metrics)

    def best_evaluation(self) -> dict[str, Any]:
        """Step and value of the evaluation that decides which checkpoint is the best."""
        metric = f"{self.config.evaluation.weights}/{self.setup.inference_head}/top1"
        return best_evaluation(self.run.path, metric)

    def finish(self, evaluation: dict[str, Metrics]) -> dict[str, Any]:
        """Write `result.json`; only the first process does, and knows the best evaluation."""
        self.stop_if_nothing_was_learned()
        first = jax.process_index() == 0
        result = make_result(
            self.setup,
            self.state,
            evaluation,
            seconds=self.clock.total(),
            best=self.best_evaluation() if first else {},
        )
        if first:
            self.run.write_result(result)
        return result

    def summary(self, result: dict[str, Any]) -> str:
        """Say how it ended, and where everything is."""
        weights, head = self.config.evaluation.weights, self.setup.inference_head
        top1, best = result["evaluation"][weights][head]["top1"], result["best"]
        of_best = f"; best {best['value']:.2f} % at step {best['step']:,}" if best else ""
        return (
            f"Done: top-1 {top1:.2f} % ({weights} weights, {head} head) after {result['steps']:,} "
            f"steps{of_best}. Everything is in {self.run.path}; "
            f"python -m deit_jax report {self.run.path} shows it."
        )

    def describe(self) -> str:
        """Say what is about to happen, with the numbers that follow from the configuration."""
        setup, config = self.setup, self.config
        teacher = f", taught ({config.distillation.kind}) by {config.teacher.name}"
        # Where a batch is larger than the data set, the epochs run fast.
        each = 1 / setup.steps_per_epoch
        epochs = f" ({each:.3g} epochs each)" if each > 1 else ""
        start = f"continuing at step {self.start}" if self.start else "starting"
        return (
            f"{config.model.name} ({count_parameters(self.state['params']):,} parameters)"
            f"{teacher if setup.teacher else ''}; {len(setup.train_source):,} training and "
            f"{len(setup.eval_source):,} evaluation images of {setup.train_source.name}; "
            f"{setup.total_steps:,} steps of {config.training.batch_size} images{epochs} on "
            f"{setup.mesh.size} {jax.default_backend()} device(s); "
            f"{describe_readers(setup.train_input, jax.process_count())}; peak learning rate "
            f"{peak_learning_rate(config):.3g}; {start}."
        )


class _Clock:
    """Seconds spent training, evaluation and checkpoints not counted in the rate."""

    def __init__(self, before: float) -> None:
        self._before, self._begin = before, time.monotonic()
        self._mark, self._step, self._away = self._begin, 0, 0.0

    def total(self) -> float:
        """Seconds of the whole run, earlier stretches included."""
        return self._before + time.monotonic() - self._begin

    def since_start(self) -> float:
        """Seconds of this stretch."""
        return time.monotonic() - self._begin

    def restart(self, step: int) -> None:
        """Count the rate from now."""
        self._mark, self._step, self._away = time.monotonic(), step, 0.0

    def rate(self, step: int) -> float:
        """Steps per second since the last call."""
        seconds = time.monotonic() - self._mark - self._away
        rate = (step - self._step) / seconds if seconds > 0 else math.nan
        self.restart(step)
        return rate

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave what happens inside out of the rate."""
        begin = time.monotonic()
        yield
        self._away += time.monotonic() - begin
