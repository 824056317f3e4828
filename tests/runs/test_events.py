"""What is written for TensorBoard, read by TensorBoard."""

import io

import numpy as np
import pytest
from PIL import Image

from configs import digits
from deit_jax.config.keys import leaves_by_key
from deit_jax.runs.log import RunLog

MEASURES = ["eval/raw/class/top1", "eval/raw/class/loss"]


def parameters():
    return leaves_by_key(digits.get_config("none"))


@pytest.fixture
def read():
    """Return `read(workdir)`: all that TensorBoard finds there."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def accumulate(workdir):
        found = EventAccumulator(str(workdir), size_guidance={"images": 0})
        return found.Reload()

    return accumulate


def test_hyperparameters_are_in_tensorboards_table(tmp_path, read):
    from tensorboard.plugins.hparams import metadata

    with RunLog(tmp_path, resume_step=0, hyperparameters=parameters(), measures=MEASURES) as log:
        log.write(1, "eval", {"raw/class/top1": 50.0, "raw/class/loss": 1.0})
    found = read(tmp_path)
    content = found.PluginTagToContent("hparams")
    begin = metadata.parse_session_start_info_plugin_data(content["_hparams_/session_start_info"])
    values = {name: getattr(v, v.WhichOneof("kind")) for name, v in begin.hparams.items()}
    expected = {
        name: ",".join(map(str, value)) if isinstance(value, tuple) else value
        for name, value in parameters().items()
    }
    assert values == expected
    experiment = metadata.parse_experiment_plugin_data(content["_hparams_/experiment"])
    assert [info.name.tag for info in experiment.metric_infos] == MEASURES
    assert set(MEASURES) <= set(found.Tags()["scalars"])
    end = metadata.parse_session_end_info_plugin_data(content["_hparams_/session_end_info"])
    assert end.status == 1  # STATUS_SUCCESS of tensorboard/plugins/hparams/api.proto


def test_a_run_that_was_stopped_has_no_end(tmp_path, read):
    with (
        pytest.raises(KeyboardInterrupt),
        RunLog(tmp_path, resume_step=0, hyperparameters=parameters()),
    ):
        raise KeyboardInterrupt
    assert "_hparams_/session_end_info" not in read(tmp_path).PluginTagToContent("hparams")
    # Going on, it ends.
    with RunLog(tmp_path, resume_step=0, hyperparameters=parameters()):
        pass
    assert "_hparams_/session_end_info" in read(tmp_path).PluginTagToContent("hparams")


def test_pictures_come_out_as_they_went_in(tmp_path, read):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    with RunLog(tmp_path, resume_step=0) as log:
        log.picture(0, "train/images", Image.fromarray(pixels))
    (event,) = read(tmp_path).Images("train/images")
    assert (event.step, event.width, event.height) == (0, 30, 20)
    shown = Image.open(io.BytesIO(event.encoded_image_string))
    np.testing.assert_array_equal(np.asarray(shown), pixels)
    (tmp_path / "none").mkdir()
    with RunLog(tmp_path / "none", resume_step=0, tensorboard=False) as log:
        log.picture(0, "train/images", Image.fromarray(pixels))
    assert not list((tmp_path / "none").glob("events*"))
