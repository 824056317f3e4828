import json

import jax
import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import measure, report, throughput, torch_side
from benchmarks.cases import OURS, Case, train_config
from benchmarks.flops import model_flops, vit_forward_flops
from benchmarks.report import load_sentence
from benchmarks.timing import Program, Spread, speedup, take_turns
from deit_jax.augment.mixup_cutmix import one_hot_targets
from deit_jax.models.functional import abstract
from deit_jax.models.registry import model_builder
from deit_jax.schema.networks import DistillationOptions
from deit_jax.training.distillation.losses import distillation_loss
from deit_jax.training.optimizer import decay_mask

MICRO = ["--models", "deit_micro_distilled_patch4_16", "--batch-sizes", "4", "--repeats", "2"]

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture
def programs_are_kept_again():
    """The benchmark compiles everything anew, and what follows it in this process would too."""
    yield
    jax.config.update("jax_enable_compilation_cache", True)


# Training, and the count of a convnet teacher's operations, take most of the time.
@pytest.mark.usefixtures("programs_are_kept_again")
@pytest.mark.parametrize(
    "modes", [("inference",), pytest.param(("inference", "distill"), marks=pytest.mark.full)]
)
def test_page_and_json(tmp_path, capsys, modes):
    code = throughput.main(
        [
            *MICRO,
            *("--modes", ",".join(modes), "--teacher", "regnety_micro"),
            *("--dtypes", "bfloat16", "--micro-batches", "2", "--turn-seconds", "0.01"),
            *("--json", str(tmp_path / "r.json"), "--markdown", str(tmp_path / "r.md")),
        ]
    )
    assert code == 0
    shown = "distill by regnety_micro" if "distill" in modes else "inference"
    assert f"| deit_micro_distilled_patch4_16 | {shown} |" in capsys.readouterr().out
    report = json.loads((tmp_path / "r.json").read_text())
    assert [r["mode"] for r in report["results"]] == list(modes)
    for result in report["results"]:
        # Not below 1 for the fraction of the peak: it is measured, and other work may slow it.
        assert result["images_per_second"] > 0 and result["mfu"] > 0
        assert result["compile_seconds"] > 0 and result["memory_bytes"] > 0
    source = "analytic, teacher XLA" if "distill" in modes else "analytic"
    assert report["results"][-1]["flops_source"] == source
    assert str(tmp_path) not in report["command"]
    page = (tmp_path / "r.md").read_text()
    for words in ("python 3.", "jaxlib", "cores", "products of 1024x1024", "XLA plan"):
        assert words in page


@pytest.mark.full
@pytest.mark.usefixtures("programs_are_kept_again")
def test_forms_of_attention_are_programs_of_their_own_built_at_once(tmp_path):
    arguments = [*MICRO, "--modes", "train", "--attention", "auto,recompute"]
    more = ["--build-threads", "2", "--turn-seconds", "0.01", "--json", str(tmp_path / "r.json")]
    assert throughput.main([*arguments, *more]) == 0
    results = json.loads((tmp_path / "r.json").read_text())["results"]
    assert [r["program"] for r in results] == ["deit_jax", "deit_jax (recompute)"]
    # Nothing that was compiled beside something else says how long it takes.
    assert all(r["compile_seconds"] == 0 for r in results)
    forms = [OURS[r["program"]] for r in results]
    assert forms == ["auto", "recompute"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--models", "deit_tny_patch16_224"], "deit_tiny_patch16_224"),
        ([*MICRO, "--modes", "sleep"], "'sleep' is none of inference, train, distill"),
        ([*MICRO, "--batch-sizes", "four"], "'four' is not a comma-separated list"),
        ([*MICRO, "--batch-sizes", "0"], "not a comma-separated list of whole numbers above 0"),
        ([*MICRO, "--build-threads", "0"], "argument --build-threads: '0' is no whole number"),
        ([*MICRO, "--modes", "train", "--micro-batches", "3"], "cut into 3 micro-batches"),
        ([*MICRO, "--modes", "distill", "--teacher", "regnety"], "no model named 'regnety'"),
        (["--models", "regnety_micro", "--modes", "distill"], "is a teacher"),
        ([*MICRO, "--json", "no/such/folder/r.json"], "no/such/folder is not a directory"),
        ([*MICRO, "--json", "benchmarks"], "benchmarks is a directory; name a file"),
        ([*MICRO, "--against", "torch"], "timm"),
        ([*MICRO, "--repeats", "0"], "argument --repeats: '0' is no whole number"),
    ],
)
def test_bad_input_ends_with_a_sentence(arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        throughput.main(arguments)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


def test_two_devices_are_not_compared(capsys, monkeypatch):
    monkeypatch.setattr(torch_side, "DEVICE", torch.device("cuda"))
    with pytest.raises(SystemExit, match="2"):
        throughput.main(["--models", "deit_tiny_patch16_224", "--against", "torch"])
    assert "JAX computes on a cpu, PyTorch on a gpu" in capsys.readouterr().err


def test_what_could_not_be_weighed_says_why():
    row = {"memory_bytes": 0, "memory_kind": "not measured: no result after 3 s"}
    assert report._memory(row) == "not measured: no result after 3 s"
    assert report._memory(row | {"memory_kind": report.PLAN_KIND}) == "-"


@pytest.mark.parametrize(
    "name",
    ["deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "deit3_small_patch16_224"],
)
def test_analytic_count_is_what_torch_counts(name):
    with torch.device("meta"):
        model = timm.create_model(name).eval()
        for block in model.blocks:
            # The fused kernel has no products of its own to count.
            block.attn.fused_attn = False
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, 224, 224))
    params = abstract(model_builder(name))[1]
    assert vit_forward_flops(params, (224, 224)) == counter.get_total_flops()


def test_teacher_count_is_close_to_torchs():
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        timm.create_model("regnety_040").eval()(torch.zeros(2, 3, 224, 224))
    counted, source = model_flops(Case("regnety_040", "inference", 2, "float32"))
    assert source == "XLA"
    # XLA leaves out products with the padding (less) and counts elementwise operations (more).
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_a_teacher_is_counted_at_the_images_of_its_student():
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        timm.create_model("regnety_040").eval()(torch.zeros(2, 3, 384, 384))
    student = "deit_base_distilled_patch16_384"
    taught = model_flops(Case(student, "distill", 2, "float32", "regnety_040"))[0]
    alone = model_flops(Case(student, "train", 2, "float32"))[0]
    assert taught - alone == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_both_sides_compute_the_same_loss():
    torch.manual_seed(0)
    heads, teacher = (torch.randn(6, 10), torch.randn(6, 10)), torch.randn(6, 10)
    labels = torch.arange(6)
    targets = torch_side.smoothed_targets(labels, 10, 0.1)
    ours = [value.numpy() for value in (*heads, teacher)]
    our_targets = one_hot_targets(labels.numpy(), 10, 0.1)
    for kind, their_teacher, our_teacher in (("none", None, None), ("hard", teacher, ours[2])):
        loss = distillation_loss(*ours[:2], our_teacher, our_targets, DistillationOptions(kind))
        theirs = torch_side.student_loss(heads, targets, their_teacher, 0.5)
        # Two float32 sums of the same ten terms.
        assert float(loss.total) == pytest.approx(float(theirs), rel=1e-6)
    loss = distillation_loss(ours[0], None, None, our_targets, DistillationOptions())
    theirs = torch_side.student_loss(heads[0], targets, None, 0.5)
    assert float(loss.total) == pytest.approx(float(theirs), rel=1e-6)


def test_both_sides_decay_the_same_weights():
    name = "deit_tiny_distilled_patch16_224"
    config = train_config(Case(name, "train", 1, "float32"), 1)
    with torch.device("meta"):
        model = timm.create_model(name)
    groups = torch_side.make_optimizer(model, config.optimizer).param_groups
    theirs = {g["weight_decay"]: sum(p.numel() for p in g["params"]) for g in groups}
    params = abstract(model_builder(name))[1]
    mask = decay_mask(params, config.optimizer.no_decay)
    leaves = zip(jax.tree.leaves(params), jax.tree.leaves(mask), strict=True)
    ours = {config.optimizer.weight_decay: 0, 0.0: 0}
    for leaf, decayed in leaves:
        ours[config.optimizer.weight_decay if decayed else 0.0] += leaf.size
    assert theirs == ours


def test_torch_step_updates_weights_and_average(monkeypatch):
    def small(name, **options):
        size = dict(img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3)
        return timm.models.VisionTransformer(num_classes=10, **size)

    monkeypatch.setattr(torch_side, "_model", small)
    losses = []
    for micro_batches in (1, 2):
        torch_side.settings()
        case = Case("deit_micro_patch4_16", "distill", 4, "float32", "regnety_micro")
        step = torch_side.TrainStep(case, micro_batches, lambda function: function)
        before = [value.clone() for value in step.averaged]
        losses.append([float(step()), float(step())])
        moved = [not torch.equal(old, new) for old, new in zip(before, step.averaged, strict=True)]
        assert all(moved)
        drift = step.average[0] - before[0]
        assert 0 < drift.abs().max() < (step.averaged[0] - before[0]).abs().max()
    # Slices of equal size: the mean of their means is the mean, up to float32 sums.
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0][1] < losses[0][0]


def test_programs_take_turns():
    log = []

    def program(name, wait_each):
        return Program(name, 1, lambda: log.append(name), lambda: log.append("|"), wait_each)

    seconds = take_turns([program("a", True), program("b", False)], rounds=2, turn_seconds=1e-9)
    assert [len(times) for times in seconds] == [2, 2]
    calls = [entry for entry in log if entry != "|"]
    assert calls == ["a", "a", "b", "b", "a", "b", "a", "b"]
    assert log[-5:] == ["a", "|", "|", "b", "|"]


def test_ratio_is_above_one_where_ours_takes_less_time():
    assert speedup([1.0, 2.0, 1.0], [3.0, 2.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    ours, slow, fast = (Program(n, 1, None, None, True) for n in ("deit_jax", "torch", "torch"))
    times = [[1.0, 1.0], [4.0, 4.0], [3.0, 3.0]]
    assert measure.speedups(times[0], [ours, slow, fast], times) == {"torch": Spread(3.0, 3.0, 3.0)}


def test_a_busy_machine_is_named():
    assert "quiet" not in load_sentence([{"other_load": 0.01}])
    assert "30 %" in load_sentence([{"other_load": 0.3}])
    assert "repeat on a quiet machine" in load_sentence([{"other_load": 0.3}])
