from deit_jax.cli.main import main
from deit_jax.models.registry import list_models, model_spec


def _table(capsys):
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {name: rest for name, *rest in cells}


def test_every_registered_model_is_listed(capsys):
    assert main(["models"]) == 0
    table = _table(capsys)
    assert list(table) == list_models()
    for name, (size, parameters, top1, known) in table.items():
        spec = model_spec(name)
        assert size == f"{spec.image_size[0]} x {spec.image_size[1]}"
        assert int(parameters.replace(",", "")) == spec.parameters
        assert (float(top1) if top1 != "-" else 0.0) == spec.top1
        # Each publisher's own way of naming files.
        elsewhere = name.replace("deit3", "deit_3").replace("tf_efficientnet_", "efficientnet-")
        published = f"{name}-", f"{elsewhere}-", f"{elsewhere.partition('_patch')[0]}_"
        assert known == "-" or known.startswith(published)
    assert table["deit_small_patch16_224"][3] == "deit_small_patch16_224-cd65a155.pth"


def test_patterns(capsys):
    assert main(["models", "deit_*_384"]) == 0
    assert list(_table(capsys)) == list_models("deit_*_384") != []
    assert main(["models", "small"]) == 0
    assert list(_table(capsys)) == list_models("*small*") != []


def test_nothing_matches(capsys):
    assert main(["models", "deit_smal_patch16_224x"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "did you mean deit_small_patch16_224" in captured.err
