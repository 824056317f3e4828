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
            # Do as the reference code does wherever the paper or common sense differs: see
            # deit_jax.config.reference for the keys that this sets.
            "reference": False,
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
        # "prepared" (by `python -m deit_jax prepare`), "tfds" (prepared by TensorFlow Datasets),
        # "folder" (directory/split/class/image), "numbered_folder" (classes in the order of
        # numbers, as in ImageNet-V2), "digits".
        "source": "tfds",
        # folder, prepared: its root; tfds: DIR/name/version, the prepared data set itself.
        "directory": "",
        "train_split": "train",
        "eval_split": "validation",
        # Use only so many labelled training images, class-balanced; 0 uses all.
        "train_images": 0,
        # Or this share of them, class-balanced.
        "fraction": 1.0,
        # Keep only so many classes, a fixed choice, in both splits; 0 keeps all.
        "classes": 0,
        # Damaged records that are put up with: below 1 a share of the data set, else a count.
        "max_damaged": 0.001,
        # "random_resized"; "simple": the whole image, moved by a few pixels (DeiT III on
        # ImageNet-21k); or "none" for images that already have the model's size.
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
        # Start from these weights: whatever deit_jax.load_weights reads. "": fresh initialisation.
        "weights": "",
        "drop_rate": 0.0,
        # Stochastic depth of the last block, rising linearly from 0; of DeiT III: of all blocks.
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
        # Without a teacher, a student with two heads learns the labels with "both", or with the
        # "class" head only (reference code).
        "without_teacher": "both",
    }


def _teacher() -> dict:
    return {
        "name": "regnety_160",
        # A run directory of train.py, a file of weights, or a cached Hugging Face repository.
        "weights": "",
        # Of a run directory: "best", "latest" or a step.
        "checkpoint": "best",
        "ema": False,
        "dtype": "bfloat16",
        # Normalisation it was trained with; (): what its run or its config.json says, else
        # ImageNet's. Where it is not the student's, the same pixels are normalised again.
        "mean": (),
        "std": (),
        # Images are resized to it on the device; (0, 0): the student's size for a convnet, that
        # of its weights for a transformer.
        "image_size": (0, 0),
        # File with the teacher's class index for each class of the student; "": the same classes.
        "classes": "",
    }


def _optimizer() -> dict:
    return {
        "name": "adamw",
        # Per so many images of a batch (multiplied by batch_size / per_images); 0: as it is.
        "learning_rate": 5e-4,
        "per_images": 512,
        "weight_decay": 0.05,
        # "reference": all but 1-D, biases, position embedding and class token is decayed;
        # "timm": the distillation token is spared as well.
        "no_decay": "reference",
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-8,
        # SGD only.
        "momentum": 0.9,
        "nesterov": True,
        # Every layer further from the heads learns so many times as fast; 1 is no difference.
        "layer_decay": 1.0,
        # Largest global norm of the gradient; 0 does not clip.
        "clip_norm": 0.0,
    }


def _schedule() -> dict:
    return {
        # "cosine", "linear", "step" or "constant", after warm-up.
        "name": "cosine",
        "epochs": 300.0,
        # Further epochs at the last rate.
        "cooldown_epochs": 0.0,
        "warmup_epochs": 5.0,
        # Absolute, not scaled with the batch (as in the reference).
        "warmup_learning_rate": 1e-6,
        "final_learning_rate": 1e-5,
        # "step" only: every so many epochs, times so much.
        "decay_epochs": 30.0,
        "decay_rate": 0.1,
        # One rate for each epoch and that one epoch late (reference code), or one for each step.
        "per_epoch": False,
        # First and last epoch with noise as shares of all, such as (0.5, 1.0); (): no noise.
        # Its standard deviation and its limit are relative to the rate.
        "noise_range": (),
        "noise_std": 1.0,
        "noise_limit": 0.67,
    }


def _training() -> dict:
    return {
        # Global, repeats included.
        "batch_size": 1024,
        # Run the batch as so many slices and add their gradients: same result, less memory.
        "micro_batches": 1,
        "label_smoothing": 0.1,
        # "cross_entropy"; "binary_cross_entropy" with the same targets; or
        # "multi_hot_binary_cross_entropy", where every class mixed in counts in full (DeiT III).
        "loss": "cross_entropy",
        # Two submodels (draws of stochastic depth) learn from each other (arXiv 2212.04884).
        "cosub": False,
        # What is trained: "all", "attention" (with position embedding and heads) or "heads".
        "parts": "all",
        # Train what inference computes: no dropout, no stochastic depth, both heads averaged.
        # How the reference fine-tuned at 384.
        "eval_mode": False,
        # On a GPU: the same bits in every run and after every resume, by kernels that add up in one
        # order only. Costs speed. CPUs and TPUs repeat themselves without it.
        "repeatable": False,
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
