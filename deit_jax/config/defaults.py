"""Every configuration key, with the value that the reference recipe gives it.

A config file starts from `default_config()` and changes what its experiment needs. Numbers that
follow from others (steps, learning rate at this batch size) are computed and printed, never set.
Values are typed by their default: tuples instead of lists, "" or 0 for "not used", never None.
"""

from ml_collections import ConfigDict

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def default_config() -> ConfigDict:
    """Return the base configuration: DeiT-S on ImageNet without a teacher (paper, Table 9)."""
    return ConfigDict(
        {
            "seed": 0,
            "data": _data(),
            "augment": _augment(),
            "mix": _mix(),
            "model": _model(),
            "distillation": _distillation(),
            "teacher": _teacher(),
            "optimizer": _optimizer(),
            "schedule": _schedule(),
            "training": _training(),
            "ema": {
                # 0 switches it off. The reference's 0.99996 suits runs of 100,000s of steps.
                "decay": 0.99996,
                # Use min(decay, (1 + step) / (10 + step)), so that short runs have a useful EMA.
                "warmup": False,
            },
            "evaluation": _evaluation(),
            "checkpoint": _checkpoint(),
            "log": {"every_steps": 50, "tensorboard": True},
        }
    )


def _data() -> dict:
    return {
        # "tfds" (prepared as ArrayRecord), "folder" (directory/split/class/image), "digits".
        "source": "tfds",
        # folder: its root; tfds: DIR/name/version, the prepared data set itself.
        "directory": "",
        "train_split": "train",
        "eval_split": "validation",
        # Use only so many labelled training images, class-balanced; 0 uses all.
        "train_images": 0,
        # "random_resized", or "none" for images that already have the model's size.
        "crop": "random_resized",
        "crop_scale": (0.08, 1.0),
        "crop_ratio": (3 / 4, 4 / 3),
        "interpolation": "bicubic",
        # Evaluation resizes to size / ratio, then crops the centre.
        "eval_crop_ratio": 0.875,
        # Repeated augmentation: each drawn image enters the batch this many times (paper, 3).
        "repeats": 3,
        # Worker processes (0: read in this process), threads in each, batches read ahead.
        "workers": 0,
        "threads": 2,
        "prefetch": 2,
    }


def _augment() -> dict:
    # On the device; deit_jax.augment.options explains every key.
    return {
        "crop_padding": 0,
        "crop_mode": "reflect",
        "flip": 0.5,
        "policy": "rand-m9-mstd0.5-inc1",
        "interpolation": "bicubic",
        # The reference sets 0.3 and ignores it beside RandAugment.
        "color_jitter": 0.0,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "erasing_probability": 0.25,
        "erasing_mode": "pixel",
        "erasing_count": 1,
        "erasing_area": (0.02, 1 / 3),
        "erasing_aspect": 0.3,
    }


def _mix() -> dict:
    # deit_jax.augment.mixing explains every key.
    return {
        # Both parameters of the Beta distributions; 0 switches the one off.
        "mixup_alpha": 0.8,
        "cutmix_alpha": 1.0,
        "probability": 1.0,
        "switch_probability": 0.5,
        "mode": "batch",
        "minmax": (),
        # One draw for so many consecutive images, as the reference has one for each process;
        # independent of the number of devices. 0: one for the whole batch.
        "group": 64,
    }


def _model() -> dict:
    return {
        "name": "deit_small_patch16_224",
        "num_classes": 1000,
        "image_size": (224, 224),
        "drop_rate": 0.0,
        # Stochastic depth of the last block; rises linearly from 0 at the first.
        "drop_path_rate": 0.1,
        # Operands of products; parameters, softmax, normalisation and loss stay float32.
        "dtype": "bfloat16",
    }


def _distillation() -> dict:
    return {
        # "none", "soft" (Kullback-Leibler), "hard" (the teacher's label).
        "kind": "none",
        # Share of the teacher's term: 0.1 for soft, 0.5 for hard in the paper.
        "weight": 0.5,
        "temperature": 3.0,
        # Soft: divide the sum by "batch" (paper) or "batch_times_classes" (reference code).
        "normaliser": "batch",
    }


def _teacher() -> dict:
    return {
        "name": "regnety_160",
        # A run directory of train.py.
        "weights": "",
        # "best", "latest" or a step.
        "checkpoint": "best",
        "ema": False,
        "dtype": "bfloat16",
    }


def _optimizer() -> dict:
    return {
        "name": "adamw",
        # Per 512 images; multiplied by batch_size / 512.
        "learning_rate": 5e-4,
        "weight_decay": 0.05,
        # "reference": all but 1-D, biases, position embedding and class token is decayed;
        # "timm": the distillation token is spared as well.
        "no_decay": "reference",
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-8,
        # SGD only.
        "momentum": 0.9,
        # Largest global norm of the gradient; 0 does not clip.
        "clip_norm": 0.0,
    }


def _schedule() -> dict:
    return {
        "epochs": 300.0,
        "warmup_epochs": 5.0,
        # Absolute, not scaled with the batch (as in the reference).
        "warmup_learning_rate": 1e-6,
        "final_learning_rate": 1e-5,
    }


def _training() -> dict:
    return {
        # Global, repeats included.
        "batch_size": 1024,
        # Run the batch as so many slices and add their gradients: same result, less memory.
        "micro_batches": 1,
        "label_smoothing": 0.1,
        # Stop after so many steps with non-finite loss or gradient in a row.
        "max_skipped_steps": 10,
    }


def _evaluation() -> dict:
    return {
        "batch_size": 1024,
        "every_epochs": 1.0,
        # Both heads at inference: "mean_logits" (published accuracies) or "sum_softmax" (paper).
        "fusion": "mean_logits",
        # Which weights decide the best checkpoint: "raw" or "ema".
        "weights": "raw",
    }


def _checkpoint() -> dict:
    return {
        "every_steps": 1000,
        "keep_latest": 2,
        # Keep one for good every so many steps; 0 keeps none.
        "keep_every_steps": 0,
        "keep_best": 1,
    }
