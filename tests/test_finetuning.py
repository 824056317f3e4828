"""Fine-tuning with a teacher at a larger size, from the weights to the result, in a few steps."""

import json

import numpy as np
import pytest

from configs import digits, digits_finetune
from deit_jax.config.validate import validate
from deit_jax.runs.open_weights import read_weights
from deit_jax.training.loop import train
from tests.config.reduced import save_weights

pytestmark = pytest.mark.slow


@pytest.mark.usefixtures("quick_compilation", "on_devices")
def test_a_student_of_16_pixels_is_tuned_at_24_by_a_teacher_of_16(tmp_path):
    config = digits_finetune.get_config("hard")
    config.model.weights = save_weights(tmp_path, config.model.name)
    config.teacher.weights = save_weights(tmp_path, "regnety_micro")
    config.training.batch_size = config.evaluation.batch_size = 40
    config.schedule.update(epochs=4.0, warmup_epochs=1.0)
    config.evaluation.every_epochs = 4.0
    config.log.tensorboard = False
    assert validate(config, device_count=8) == []
    result = train(config, str(tmp_path / "run"))
    assert result["steps"] == 5 and result["skipped_steps"] == 0
    assert result["teacher"]["name"] == "regnety_micro"
    assert set(result["evaluation"]["raw"]) == {"class", "distillation", "fused"}
    assert json.loads((tmp_path / "run" / "result.json").read_text())["digest"] == result["digest"]
    found = read_weights(str(tmp_path / "run"))
    # Names of classes are in the checkpoint, and for people in the record.
    digits = [str(digit) for digit in range(10)]
    assert found.facts.labels == tuple(digits)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["class_names"] == digits
    # 6 x 6 positions and two tokens, and near what it started from.
    tuned = found.params
    assert np.shape(tuned["pos_embed"]) == (1, 38, 64)
    start = read_weights(config.model.weights).params
    kernel = lambda tree: np.asarray(tree["blocks"]["0"]["attn"]["qkv"]["kernel"])  # noqa: E731
    moved = np.abs(kernel(tuned) - kernel(start))
    # Five steps of Adam at up to 2e-3 * 40 / 512 each.
    assert 0 < moved.max() < 5 * 2e-3 * 40 / 512 * 2


@pytest.mark.full
@pytest.mark.usefixtures("quick_compilation", "on_devices")
def test_a_trained_convnet_of_imagenet_teaches_digits(tmp_path):
    """Nothing to learn from, but all that a package's weights pass through on their way."""
    config = digits.get_config("hard")
    config.teacher.update(weights="lite0", name="tf_efficientnet_lite0", image_size=(32, 32))
    # A class of ImageNet for each digit.
    config.teacher.classes = str(tmp_path / "classes.txt")
    (tmp_path / "classes.txt").write_text(" ".join(map(str, range(600, 610))))
    config.training.batch_size = config.evaluation.batch_size = 40
    config.schedule.update(epochs=2.0, warmup_epochs=1.0)
    config.evaluation.every_epochs = 2.0
    config.log.tensorboard = False
    assert validate(config, device_count=8) == []
    result = train(config, str(tmp_path / "run"))
    assert result["skipped_steps"] == 0
    assert result["teacher"]["name"] == "tf_efficientnet_lite0"
    assert result["teacher"]["weights"] == "lite0"
