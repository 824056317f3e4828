"""One stretch of training: read a batch, take the step, and now and then log, evaluate and save."""

import contextlib
import math
from collections.abc import Mapping
from typing import Any, NoReturn

import jax

from deit_jax.data.stream.loader import Batches
from deit_jax.evaluation.metrics import Metrics, evaluate
from deit_jax.kept_memory import give_back
from deit_jax.runs.checkpoints.directory import OWES_EVALUATION, add_metrics
from deit_jax.runs.checkpoints.manager import Checkpoints
from deit_jax.runs.directory import RunDirectory
from deit_jax.runs.interruption import Abandoned, Interruption
from deit_jax.runs.processes import any_process, from_all
from deit_jax.sharding import place, put_batch
from deit_jax.training.announcements import closing, opening
from deit_jax.training.clock import Clock
from deit_jax.training.continuation import say_if_epochs_moved
from deit_jax.training.example import Batch
from deit_jax.training.progress import Progress
from deit_jax.training.recorder import Recorder, open_log
from deit_jax.training.roll_backs import GoBack
from deit_jax.training.setup import Setup
from deit_jax.training.skipped_steps import stop_if_nothing_was_learned
from deit_jax.training.state import TrainState
from deit_jax.trees import Tree
from deit_jax.weights.fit import Fitted


class Stretch:
    """From a start or a checkpoint to the end, or to a `GoBack`."""

    def __init__(
        self,
        setup: Setup,
        run: RunDirectory,
        checkpoints: Checkpoints,
        weights: Fitted | None,
        interruption: Interruption,
        stack: contextlib.ExitStack,
        carried: Mapping[str, Any],
    ) -> None:
        """Restore the latest checkpoint, if there is one.

        Args:
            setup: of the run.
            run: its open directory.
            checkpoints: in it.
            weights: to start from, if not from the initialisation.
            interruption: what takes the signals.
            stack: closes what is opened here.
            carried: `GoBack.carried` of the stretch before, in the same process; {} without one.
        """
        self.setup, self.config = setup, setup.config
        self.run, self.checkpoints, self.interruption = run, checkpoints, interruption
        restored = checkpoints.restore_latest(setup.abstract_state)
        self.state: TrainState = restored.state if restored else setup.initial_state(weights)
        self.load_report = weights.report if weights else None
        self.goes_back = bool(carried)
        self.start = restored.step if restored else 0
        # Notes that the checkpoints of older runs do not have begin anew.
        meta = {**(restored.meta if restored else {}), **carried}
        # A signal came while this step was evaluated.
        self.owes_evaluation = bool(meta.get(OWES_EVALUATION))
        self.left_open: list[Batches] = []
        self.clock = Clock(meta.get("seconds", 0.0))
        self.damaged: tuple[int, ...] = tuple(meta.get("damaged", ()))
        self.teacher_params: Tree = {}
        if setup.lessons:
            setup.lessons.go_on_from(meta.get("labels", {}))
        elif setup.teacher:
            self.teacher_params = place(setup.teacher.params, setup.mesh)
        log = stack.enter_context(open_log(setup, run, self.start, self.owes_evaluation))
        say_if_epochs_moved(meta, self.start, setup.steps_per_epoch)
        self.stack = stack
        self.progress = stack.enter_context(Progress(setup.total_steps, start_step=self.start))
        self.recorder = Recorder(setup, run, checkpoints, log, self.progress, self.clock, meta)

    def go(self) -> dict[str, Any]:
        """Train to the last step and write the result."""
        setup, total = self.setup, self.setup.total_steps
        if not self.goes_back:
            self.introduce()
        batches = setup.train_batches(
            self.start, known_damaged=self.damaged, left_out=self.recorder.roll_backs.left_out
        )
        self.stack.callback(self.close, batches)
        evaluation = self.pay_evaluation() if self.owes_evaluation else None
        if self.start < total and not self.goes_back:
            self.progress.message("Compiling the train step ...")
        for step in range(self.start + 1, total + 1):
            batch = self.read(batches)
            self.damaged = batches.damaged_numbers
            self.interruption.begin(step)
            self.state = self.take(step, batch)
            first = step == self.start + 1
            if first:
                # It compiles; throughput is counted from the second.
                self.settle()
                give_back()
            # Before it is told: a signal that answers the line below finds a step to save.
            self.interruption.step_done()
            if first:
                if not self.goes_back:
                    self.progress.message(f"First step after {self.clock.since_start():.1f} s.")
                if self.start == 0:
                    self.recorder.first_batch(batch)
                self.clock.restart(step)
            evaluation = self.after(step)
        if evaluation is None:
            # Stopped between the last checkpoint and the result: already logged.
            evaluation = self.evaluate()
        if evaluation is None:
            self.leave(total)
        stop_if_nothing_was_learned(int(self.state["skipped"]), total)
        result = self.recorder.result(self.state, evaluation)
        self.progress.message(closing(setup, result, self.run.path))
        return result

    def introduce(self) -> None:
        """Say what is about to happen."""
        if self.load_report:
            self.progress.message(self.load_report.table())
        self.progress.message(opening(self.setup, self.state, self.start))
        self.progress.message(self.setup.memory)
        if self.setup.teacher and self.setup.teacher.note:
            self.progress.message(self.setup.teacher.note)

    def read(self, batches: Batches) -> Batch:
        """Return the next batch; a wait for it counts where the devices have run out of work."""
        with self.clock.waiting(lambda: self.state["step"].is_ready()):
            batch = next(batches)
        return put_batch(batch, self.setup.mesh)

    def settle(self) -> None:
        """Wait until the devices have taken all steps that they were given."""
        jax.block_until_ready(self.state["step"])

    def take(self, step: int, batch: Batch) -> TrainState:
        """Take a step with the teacher inside, or with its labels; return the state after it."""
        if self.setup.lessons:
            # There positions in the stream are counted from 0, by what has been taken before.
            position = step - 1 + self.recorder.roll_backs.left_out
            return self.setup.lessons.take(position, self.state, batch)
        return self.setup.train_step(self.state, self.teacher_params, batch)

    def after(self, step: int) -> dict[str, Metrics] | None:
        """Do what is due after this step; return the evaluation if there was one."""
        last = step == self.setup.total_steps
        if last or step % self.config.log.every_steps == 0:
            skipped = self.recorder.training(step, self.state, from_all(self.damaged))
            self.go_back_if_lost(step, skipped)
        else:
            self.progress.update(step)
        evaluation, due = None, last or self.evaluation_due(step)
        if due:
            evaluation = self.evaluate()
            if evaluation:
                self.recorder.evaluation(step, evaluation)
        if stop := self.stop_due(step):
            self.interruption.saving()
        if due or stop or step % self.config.checkpoint.every_steps == 0:
            with self.clock.paused(self.settle):
                if self.setup.lessons:
                    self.setup.lessons.save()
                self.recorder.checkpoint(
                    step,
                    self.state,
                    evaluation,
                    damaged=from_all(self.damaged),
                    owes_evaluation=due and not evaluation,
                )
        if stop and not (last and evaluation):
            self.leave(step)
        return evaluation

    def go_back_if_lost(self, step: int, skipped: int) -> None:
        """Leave this stretch if the last steps in a row, so many, were too many to skip."""
        if back := self.recorder.roll_backs.due(self.config, self.checkpoints, step, skipped):
            number = len(self.recorder.roll_backs.done) + 1
            allowed = self.config.training.roll_backs
            self.progress.message(f"{back} (roll-back {number} of {allowed}).")
            damaged = {"damaged": from_all(self.damaged)}
            raise GoBack(back, {**self.recorder.carried(back), **damaged})

    def stop_due(self, step: int) -> bool:
        """Return whether to stop after this step: the same answer in all processes."""
        if jax.process_count() == 1 or not self.interruption.alone:
            return self.interruption.stops_after(step)
        # Asking over the devices waits for them, which logging has just done anyway.
        logged = step % self.config.log.every_steps == 0
        return logged and any_process(self.interruption.requested)

    def leave(self, step: int) -> NoReturn:
        """Leave training because a signal has come, once the checkpoint of this step is on disk."""
        raise self.interruption.error(step, saved=self.checkpoints.wait())

    def evaluation_due(self, step: int) -> bool:
        """Return whether a multiple of `evaluation.every_epochs` was passed in this step."""
        # After every step where an interval is shorter than one, however short.
        interval = max(1.0, self.config.evaluation.every_epochs * self.setup.steps_per_epoch)
        return math.floor(step / interval) > math.floor((step - 1) / interval)

    def pay_evaluation(self) -> dict[str, Metrics]:
        """Evaluate the step that training goes on from, as if it had not been stopped there."""
        if evaluation := self.evaluate():
            self.recorder.evaluation(self.start, evaluation)
            add_metrics(self.run.checkpoints, self.start, self.recorder.deciding(evaluation))
            return evaluation
        self.leave(self.start)

    def evaluate(self) -> dict[str, Metrics] | None:
        """Evaluate raw and averaged weights on the whole evaluation split; None if interrupted."""
        setup, state = self.setup, self.state
        weights = {"raw": (state["params"], state["batch_stats"])}
        if state["ema"]:
            weights["ema"] = (state["ema"]["params"], state["ema"]["batch_stats"])
        batches = setup.eval_batches()
        # Many processes must do the same, and hear of the signal after the step only.
        alone = jax.process_count() == 1
        watched = self.interruption.unless_requested(batches) if alone else batches
        with self.clock.paused(self.settle):
            try:
                return evaluate(setup.eval_step, weights, watched, setup.mesh)
            except Abandoned:
                return None
            finally:
                self.close(batches)
                give_back()

    def close(self, batches: Batches) -> None:
        """End the readers; but those of a process that a signal ends go with it, unwaited for."""
        if self.interruption.requested and jax.process_count() == 1:
            # Forgotten, they would be closed as garbage.
            self.left_open.append(batches)
        else:
            batches.close()
