"""The input benchmark: its images, its ratios, and a run of it."""

import io
import json

import pytest
from PIL import Image

from benchmarks import input as benchmark
from benchmarks.input_report import to_markdown
from benchmarks.photographs import photograph


def test_images_are_like_imagenets_and_always_the_same():
    files = [photograph(number) for number in range(20)]
    assert files[3] == photograph(3)
    # ImageNet: 110 kB and 0.19 megapixels on average.
    assert 90e3 < sum(map(len, files)) / 20 < 120e3
    sizes = [Image.open(io.BytesIO(file)).size for file in files]
    assert 0.17e6 < sum(width * height for width, height in sizes) / 20 < 0.21e6
    assert sizes.count((500, 375)) > 10


def measured(rates, processor, memory=1_000_000):
    return [
        {
            "images_per_second": rate,
            "processor_ms_per_image": processor,
            "start_seconds": 2.0,
            "first_batch_seconds": 1.0,
            "other_load": 0.01,
            "memory": {"resident": 2 * memory, "proportional": memory, "private": memory},
        }
        for rate in rates
    ]


def side(program, workers, threads):
    return {
        "program": program,
        "source": "folder",
        "directory": "/x/folder",
        "cores": 2,
        "workers": workers,
        "threads": threads,
        "repeats": 3,
        "batch_size": 64,
        "seconds": 1.0,
    }


def test_page_compares_round_by_round_with_the_same_cores():
    results = [
        {"side": side("torch", 2, 0), "rounds": measured([100, 200, 400], 4.0)},
        {"side": side("deit_jax", 2, 1), "rounds": measured([500, 1200, 2000], 0.5)},
        {"side": side("deit_jax", 0, 2), "rounds": measured([700, 1400, 2800], 0.4)},
    ]
    page = {
        "date": "2026-01-31",
        "machine": {"cpu": "a processor"},
        "versions": {"python": "3.11"},
        "command": "python -m benchmarks.input",
        "images": 256,
        "bytes_per_image": 110e3,
        "rounds": 3,
        "seconds": 1.0,
        "batch_size": 64,
        "short_side": 256,
        "results": results,
    }
    text = to_markdown(page)
    # 5, 6 and 5 times; 7 each time, against the only one with two cores.
    assert "**5.00 (5.00-6.00)**" in text and "**7.00 (7.00-7.00)**" in text
    assert "| 1200 (500-2000) | 600 |" in text
    # 4 ms of a core against 0.5 and 0.4.
    assert "| 8.00 (8.00-8.00) |" in text and "| 10.00 (10.00-10.00) |" in text
    assert "up to 1 % of the processor" in text and "110 kB on average" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--images", "0"], "argument --images: '0' is no whole number"),
        (["--images", "100"], "at least 256"),
        (["--cores", "4096"], "--cores is 4096 but there are"),
        (["--repeats", "three"], "'three' is not a comma-separated list"),
        (["--json", "no/such/folder/r.json"], "no/such/folder is not a directory"),
    ],
)
def test_bad_input_ends_with_a_sentence(arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        benchmark.main(arguments)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.full
def test_a_run(tmp_path, capsys):
    quick = ["--images", "256", "--rounds", "1", "--seconds", "0.2", "--cores", "1"]
    files = ["--json", str(tmp_path / "r.json"), "--markdown", str(tmp_path / "r.md")]
    assert benchmark.main([*quick, "--repeats", "3", *files]) == 0
    results = json.loads((tmp_path / "r.json").read_text())["results"]
    assert [result["side"]["program"] for result in results].count("torch") == 2
    for result in results:
        (turn,) = result["rounds"]
        assert turn["images_per_second"] > 0 and turn["processor_ms_per_image"] > 0
        assert turn["memory"]["proportional"] > 50e6
    text = (tmp_path / "r.md").read_text()
    assert text in capsys.readouterr().out and str(tmp_path) not in text


def test_a_missing_other_side_is_said_before_images_are_made(capsys, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError("Comparing needs timm, which is not installed: pip install it.")

    monkeypatch.setattr(benchmark.importlib, "import_module", missing)
    with pytest.raises(SystemExit, match="2"):
        benchmark.main([])
    assert "The other side is missing: Comparing needs timm" in capsys.readouterr().err
