"""The table of published files, and what happens to files that are not what their names say."""

import hashlib
import re

import numpy as np
import pytest
import torch

from deit_jax.models.registry import list_models, model_spec
from deit_jax.preprocessing import EvalView
from deit_jax.weights import published
from deit_jax.weights.description.facts import facts_of_file
from deit_jax.weights.formats.any import read_file
from deit_jax.weights.published import DEIT3, LITE, PUBLISHED, identify

DIGEST = "0123456789abcdef" * 4


def sides(entry):
    """Height and width before the centre crop."""
    return EvalView.keeping(entry.crop_ratio).sides((entry.input_size,) * 2)


def test_the_table_agrees_with_the_registry_and_with_itself():
    assert len(PUBLISHED) == len({entry.file for entry in PUBLISHED}) == 9
    for entry in PUBLISHED:
        assert re.fullmatch(rf"{entry.model}-{entry.sha256_prefix}\.pth", entry.file)
        assert re.fullmatch("[0-9a-f]{8}", entry.sha256_prefix)
        assert entry.model in list_models()
        assert model_spec(entry.model).image_size == (entry.input_size, entry.input_size)
        # int(size / 0.875), as the reference's evaluation computes it.
        assert sides(entry) == ({224: 256, 384: 438}[entry.input_size],) * 2
        assert entry.url == f"https://dl.fbaipublicfiles.com/deit/{entry.file}"
        figures = entry.top1, entry.top5, entry.loss
        if entry.model == "regnety_160":
            assert figures == (None, None, None)
        else:
            # Errors of typing: the figures order the models alike.
            assert 70 < entry.top1 < 86 and entry.top1 + 10 < entry.top5 < 98
            assert 0.6 < entry.loss < 1.3
    order = sorted((e for e in PUBLISHED if e.top1), key=lambda entry: entry.top1)
    assert [entry.top5 for entry in order] == sorted(entry.top5 for entry in order)


def test_the_table_of_efficientnet_lite():
    for entry in LITE:
        assert re.fullmatch(r"efficientnet-lite\d-[0-9a-f]{8}\.pth", entry.file)
        assert model_spec(entry.model).image_size == (entry.input_size, entry.input_size)
        # 32 pixels of margin at every size.
        assert sides(entry) == (entry.input_size + 32,) * 2


def test_files_are_known_by_name_or_by_content():
    entry = PUBLISHED[0]
    right = entry.sha256_prefix + DIGEST[8:]
    assert identify(entry.file, right) is entry
    assert identify("renamed.pth", right) is entry
    assert identify("model.pth", DIGEST) is None
    # Another file of the same naming, such as one trained by a user.
    assert identify("deit_tiny_patch16_224-20240101.pth", DIGEST) is None


def test_a_known_name_with_another_content_is_refused():
    entry = PUBLISHED[0]
    with pytest.raises(ValueError, match="begins with 01234567 and not with a1311bcf") as error:
        identify(entry.file, DIGEST)
    assert entry.url in str(error.value)


def test_reading_compares_the_published_hash(tmp_path, monkeypatch):
    path = tmp_path / PUBLISHED[0].file
    torch.save({"model": {"head.bias": torch.ones(2)}}, path)
    with pytest.raises(ValueError, match="is not the published file of that name") as error:
        read_file(path)
    assert str(path) in str(error.value)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    entry = published._entry(f"deit_tiny_patch16_224-{sha256[:8]}.pth", 72.2, 91.1, 1.2)
    monkeypatch.setattr(published, "PUBLISHED", (entry,))
    found = read_file(path)
    assert found.published is entry
    assert found.sha256 == sha256
    np.testing.assert_array_equal(found.tensors["head.bias"], [1, 1])


def test_files_of_deit_iii_are_known_by_name_but_never_called_verified(tmp_path):
    assert len(DEIT3) == len({entry.file for entry in DEIT3}) == 16
    for entry in DEIT3:
        spec = model_spec(entry.model)
        assert spec.image_size == (entry.input_size,) * 2 == sides(entry)
        assert entry.sha256_prefix == ""
        # ImageNet-21k before helps every size; without it, it is the registered accuracy.
        assert entry.top1 == spec.top1 if "_1k" in entry.file else entry.top1 > spec.top1
        assert identify(entry.file, DIGEST) is None
    path = tmp_path / "deit_3_base_384_21k.pth"
    torch.save({"model": {"head.bias": torch.ones(2)}}, path)
    facts = facts_of_file(read_file(path))
    assert facts.image_size == (384, 384)
    assert facts.preprocessing.view == EvalView.keeping(1.0)
    assert "cannot be verified" in facts.notes[-1]
