"""Every problem of a configuration is reported at once, with what to do."""

import pytest

from deit_jax.config.command_line import read_overrides
from deit_jax.config.defaults import default_config
from deit_jax.config.keys import leaves_by_key
from deit_jax.config.validate import validate
from deit_jax.config.variant import choose, choose_parts
from deit_jax.models.registry import model_builder


def valid():
    config = default_config()
    config.data.directory = "somewhere"
    return config


def test_the_default_is_valid_on_one_and_eight_devices():
    assert validate(valid()) == []
    assert validate(valid(), device_count=8) == []


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("training.batch_size", 0, "must be positive"),
        ("training.batch_size", 1020, "8 devices cannot share"),
        ("evaluation.batch_size", 1001, "multiple of 8"),
        ("training.micro_batches", 5, "5 micro-batches"),
        ("training.remat", "block", "must be one of none, blocks. Did you mean 'blocks'?"),
        ("mesh.fsdp", 0, "must be positive"),
        ("mesh.fsdp", 3, "8 device(s) cannot be divided by; use a divisor of 8"),
        ("schedule.epochs", float("nan"), "must be positive"),
        ("optimizer.weight_decay", -1.0, "at least 0"),
        ("training.label_smoothing", 1.5, "between 0 and 1"),
        ("model.drop_path_rate", 1.0, "below 1"),
        ("model.image_size", (224, 230), "multiples of 16"),
        ("model.image_size", (0, 224), "height and width"),
        ("model.name", "deit_smal_patch16_224", "Did you mean 'deit_small_patch16_224'"),
        ("model.dtype", "half", "float32, bfloat16"),
        ("optimizer.name", "adam", "Did you mean 'adamw'"),
        ("data.source", "imagenet", "tfds, folder, numbered_folder, prepared, digits"),
        ("data.directory", "", "--config.data.directory=DIR"),
        ("data.crop_scale", (0.5, 0.1), "two areas"),
        ("data.eval_crop_ratio", 0.0, "(0, 1]"),
        ("mix.group", 3, "divisor"),
        ("mix.box", "timm 0.3.2", "timm, reference"),
        ("distillation.kind", "hard", "config.teacher.weights is empty"),
        ("augment.policy", "rand-q9", "augment.policy"),
        ("optimizer.layer_decay", 0.0, "must be positive"),
        ("optimizer.name", "lambb", "Did you mean 'lamb'"),
        ("schedule.name", "cosin", "Did you mean 'cosine'"),
        ("schedule.warmup_epochs", 301.0, "longer than the whole schedule"),
        ("schedule.noise_range", (0.5, 0.1), "two rising shares"),
        ("schedule.decay_rate", 0.0, "in (0, 1]"),
        ("schedule.decay_rate", 2.0, "in (0, 1]"),
        ("training.loss", "bce", "cross_entropy"),
        ("training.parts", "head", "Did you mean 'heads'"),
        ("augment.erasing_mode", "noise", "const, rand, pixel"),
    ],
)
def test_names_the_key_and_the_remedy(key, value, words):
    config = valid()
    group, name = key.split(".")
    with config.unlocked():
        config[group][name] = value
    problems = validate(config, device_count=8)
    assert any(words in problem and key.split(".")[0] in problem for problem in problems), problems


def test_a_batch_that_devices_cannot_share_is_one_sentence():
    config = valid()
    config.training.batch_size, config.mix.group = 1020, 0
    assert len(validate(config, device_count=8)) == 1


def test_boxes_without_alphas_are_mixing_too():
    config = valid()
    config.mix.update(mixup_alpha=0.0, cutmix_alpha=0.0, group=3)
    assert validate(config) == []
    config.mix.minmax = (0.2, 0.8)
    assert [p for p in validate(config) if "mix.group" in p]


def test_teacher_that_does_not_exist():
    config = valid()
    config.distillation.kind = "soft"
    config.teacher.weights = "no/such/run"
    (problem,) = validate(config)
    assert "'no/such/run', which does not exist" in problem


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("mean", (0.5,), "three numbers"),
        ("std", (0.5, 0.0, 0.5), "must be positive"),
        ("image_size", (224, 0), "height and width"),
        ("image_size", (100, 100), "multiples of 16"),
        ("classes", "no/such/file", "no file"),
    ],
)
def test_options_of_a_teacher_of_its_own_kind(tmp_path, key, value, words):
    config = valid()
    config.distillation.kind = "hard"
    config.teacher.weights = str(tmp_path)
    config.teacher.name = "deit_base_patch16_224"
    assert validate(config) == []
    config.teacher[key] = value
    (problem,) = validate(config)
    assert f"config.teacher.{key}" in problem and words in problem


def test_a_convnet_has_no_blocks_to_compute_again():
    config = valid()
    config.model.name = "regnety_160"
    config.training.remat = "blocks"
    (problem,) = validate(config)
    assert "config.training.remat is 'blocks' but regnety_160 has no transformer" in problem


def test_micro_batches_of_a_convnet_are_refused():
    config = valid()
    config.model.name = "regnety_040"
    config.training.micro_batches = 2
    (problem,) = validate(config)
    assert "BatchNorm" in problem


def test_a_residual_stream_that_a_convnet_has_not_is_refused():
    config = valid()
    config.model.name, config.model.residual_dtype = "regnety_040", "bfloat16"
    (problem,) = validate(config)
    assert "model.residual_dtype is bfloat16 but regnety_040 is a convnet" in problem
    with pytest.raises(
        ValueError, match=r"regnety_040 is a convnet, which takes .* residual_dtype"
    ):
        model_builder("regnety_040", residual_dtype="bfloat16")


def test_where_there_are_no_fused_kernels_they_are_refused():
    config = valid()
    config.model.name, config.model.fused_kernels = "regnety_040", "norm"
    assert validate(config) == [
        "config.model.fused_kernels is norm but regnety_040 is a convnet; leave it at none."
    ]
    with pytest.raises(ValueError, match=r"regnety_040 is a convnet, which takes .* fused_kernels"):
        model_builder("regnety_040", fused_kernels="all")
    config.model.name = "deit_small_patch16_224"
    assert validate(config) == []
    for key, value in (("model.drop_rate", 0.1), ("training.remat", "blocks")):
        with config.unlocked():
            config.model.drop_rate, config.training.remat = 0.0, "none"
            config.update_from_flattened_dict({key: value})
        (problem,) = validate(config)
        assert "config.model.fused_kernels is for models without dropout" in problem


def test_parts_that_a_convnet_has_not_are_refused():
    config = valid()
    config.model.name = "regnety_040"
    config.optimizer.layer_decay, config.training.parts = 0.75, "attention"
    blocks, attention = validate(config)
    assert "no transformer blocks" in blocks and "choose 'heads'" in attention


def test_combinations_that_mean_nothing_are_refused(tmp_path):
    config = valid()
    config.optimizer.update(name="lamb", weight_decay=0.0)
    config.training.eval_mode = True
    config.distillation.kind = "hard"
    config.teacher.weights = str(tmp_path)
    lamb, mode = validate(config)
    assert "would be Adam" in lamb and "averages the heads" in mode


def test_all_problems_come_together():
    config = valid()
    config.training.batch_size = -1
    config.model.name = "nothing"
    config.ema.decay = 2.0
    assert len(validate(config)) >= 3


def test_unread_and_missing_keys_are_errors():
    config = valid()
    with config.unlocked():
        config.optimizer.lerning_rate = 1.0
        del config.mix.mode
    problems = validate(config)
    assert any("lerning_rate is read by nothing" in p for p in problems)
    assert any("'optimizer.learning_rate'" in p for p in problems)
    assert any("config.mix.mode is missing" in p for p in problems)


def test_overrides_are_read_by_the_type_of_their_key():
    rest, overrides, problems = read_overrides(
        [
            "train.py",
            "--config=x.py",
            "--config.model.image_size=96,96",
            "--config.model.image_size=128",
            "-config.seed",
            "0x10",
            "--config.data.crop_scale=[0.5, 1]",
            "--config.mix.minmax=",
            "--config.training.eval_mode",
            "--noconfig.reference",
            "--config.log.tensorboard=False",
            "--config.data.train_split=1,2=3",
            "--workdir=w",
        ]
    )
    assert problems == []
    assert rest == ["train.py", "--config=x.py", "--workdir=w"]
    assert overrides == {
        # The last one stands alone, and one number is both sides.
        "model.image_size": (128, 128),
        "seed": 16,
        "data.crop_scale": (0.5, 1.0),
        "mix.minmax": (),
        "training.eval_mode": True,
        "reference": False,
        "log.tensorboard": False,
        "data.train_split": "1,2=3",
    }


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("--config.optimizer.lr=1", "--config.optimizer.lr is no key"),
        ("--config.optimizer.learnin_rate=1", "Did you mean 'optimizer.learning_rate'?"),
        ("--config.mix={}", "--config.mix is a group of keys; set them one by one"),
        ("--config.data.crop_scale[0]=0.5", "is a part of a key; set all of it"),
        ("--noconfig.seed", "--noconfig.seed stands alone"),
        ("--config.seed", "--config.seed has no value"),
        ("--config.seed=many", "--config.seed is 'many'; give a whole number."),
        ("--config.seed=1e3", "--config.seed is '1e3'; give a whole number."),
        ("--config.training.eval_mode=yes", "is 'yes'; give True or False."),
        ("--config.data.crop_scale=1/3,1", "is '1/3,1'; give two areas"),
        ("--config.optimizer.name=adam", "Did you mean 'adamw'?"),
    ],
)
def test_mistyped_overrides_are_named_before_anything_else(override, words):
    (problem,) = read_overrides([override]).problems
    assert words in problem


def test_variants():
    assert choose("soft", ("soft", "hard"), "kind") == "soft"
    with pytest.raises(ValueError, match=r"Did you mean 'small'\?"):
        choose("smal", ("small", "base"), "size")
    with pytest.raises(ValueError, match="<a>,<b>"):
        choose_parts("x", ("a", "xy"), ("b", "xy"))


def test_no_default_is_none_or_a_list():
    # ml_collections cannot override the one and would replace the other whole.
    for key, value in leaves_by_key(default_config()).items():
        assert value is not None and not isinstance(value, list), key
