"""What is refused is refused before anything is written, and the corrected command then works."""

import json

import pytest

from configs.digits import get_config
from deit_jax.training.loop import train
from deit_jax.training.refusals import refuse_early
from deit_jax.training.setup import set_up
from deit_jax.training.skipped_steps import TrainingStopped


def small(**changes):
    """The digits student with few patches: five steps of 40 of 50 images."""
    config = get_config("none")
    config.model.name = "deit_micro_patch4_16"
    config.training.batch_size = 40
    config.mix.group = 0
    config.schedule.update(epochs=4.0, warmup_epochs=0.0)
    config.log.update(tensorboard=False, every_steps=1)
    for key, value in changes.items():
        group, _, name = key.partition("__")
        config[group][name] = value
    return config


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation", "on_devices", "programs_made_once")
def test_nothing_is_left_behind_and_the_corrected_command_works(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    workdir = tmp_path / "run"
    for wrong, words in (
        # Seen when the step is traced: no side of 16 pixels is between these.
        (small(mix__minmax=(0.51, 0.52)), "train step cannot be built: minmax"),
        (
            small(training__batch_size=240),
            r"is 240 of 50 training images.*4\.8 epochs.*epochs is 4",
        ),
        (small(schedule__epochs=1e12), "at most 2,147,483,647 can be counted"),
        (small(data__eval_split="nothing"), "nothing"),
        (small(model__weights=str(tmp_path / "none")), "config.model.weights"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            train(wrong, "~/run")
        assert not workdir.exists()
    train(small(), "~/run")
    # Fewer epochs than it has had: the run is as it was, and its own command still is a success.
    before = (workdir / "config.json").read_bytes()
    with pytest.raises(ValueError, match=r"has taken 5 steps already.*epochs is 1, which are 1"):
        train(small(schedule__epochs=1.0), str(workdir), allow_config_change=True)
    # Another network: what reads the run must not take it for that.
    with pytest.raises(ValueError, match=r"/5 does not fit: .*dist_token is absent"):
        train(
            small(model__name="deit_micro_distilled_patch4_16"), "~/run", allow_config_change=True
        )
    assert (workdir / "config.json").read_bytes() == before
    assert train(small(), str(workdir))["steps"] == 5


@pytest.mark.slow
def test_a_batch_larger_than_the_data_where_an_epoch_is_as_many_steps_as_asked_for():
    config = small(training__batch_size=240, schedule__epochs=1.0, schedule__least_steps=7)
    setup = set_up(config)
    refuse_early(setup, 0)
    assert setup.total_steps == 7


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation", "on_devices", "programs_made_once")
def test_a_run_that_never_took_a_step_has_failed(tmp_path):
    # Pixels divided by so little are not finite, and all steps are fewer than are put up with.
    config = small(augment__std=(1e-38, 1e-38, 1e-38))
    with pytest.raises(TrainingStopped, match="not finite in any of the 5 steps"):
        train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run" / "result.json").exists()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert rows[-2]["skipped_steps"] == 5


def test_a_workdir_that_checkpoints_could_not_be_written_to(tmp_path):
    with pytest.raises(ValueError, match="TensorStore knows names in UTF-8 alone"):
        train(small(), str(tmp_path / "d\udce4t"))
    assert list(tmp_path.iterdir()) == []
