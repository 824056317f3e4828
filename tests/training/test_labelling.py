"""Labels computed ahead of training are those that a run would have computed."""

import itertools

import pytest

from deit_jax.config.defaults import default_config
from deit_jax.schema import Config
from deit_jax.training.distillation import open_labels
from deit_jax.training.labelling import LabelledSteps, label, steps_of
from tests.training.labelled_runs import BATCH, STEPS, configure, refuse_loading, run


def test_stretches_of_epochs_that_adjoin_have_every_step_once():
    config = default_config()
    config.schedule.epochs, config.schedule.cooldown_epochs = 30.0, 2.5
    per_epoch = 40 / 7
    every = steps_of(None, Config.of(config), per_epoch)
    assert len(every) == round(32.5 * per_epoch)
    cuts = [0.0, 0.5, 7.0, 7.2, 31.0, 100.0]
    stretches = itertools.pairwise(cuts)
    pieces = [steps_of(stretch, Config.of(config), per_epoch) for stretch in stretches]
    assert [step for piece in pieces for step in piece] == list(every)
    with pytest.raises(ValueError, match="no step in the epochs 40:50 of a run of 32"):
        steps_of((40.0, 50.0), Config.of(config), per_epoch)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation", "small_parts", "on_devices", "programs_made_once")
def test_labels_ahead_are_those_of_a_run_and_only_what_is_missing_is_computed(
    folder, tmp_path, monkeypatch
):
    config = configure(folder, "soft")
    config.teacher.labels = str(tmp_path / "by-run")
    run(config)
    config.teacher.labels = str(tmp_path / "ahead")
    epoch = BATCH / 597
    # The middle first: what is missing lies around it.
    assert label(config, (epoch, 3 * epoch)) == LabelledSteps(range(1, 3), 2)
    assert label(config) == LabelledSteps(range(STEPS), 3)
    monkeypatch.setattr(open_labels, "load_teacher", refuse_loading)
    assert label(config) == LabelledSteps(range(STEPS), 0)
    # To the bit: the same programs have made them.
    for path in (tmp_path / "by-run" / "parts").iterdir():
        assert path.read_bytes() == (tmp_path / "ahead" / "parts" / path.name).read_bytes()
