"""Programs of a few lines that load what was exported without this project."""

from deit_jax.export.serving import Served

_HEAD = '''"""Say what is on an image: python serve.py IMAGE (needs {needs})."""
import json, pathlib, sys
import numpy as np{imports}
from PIL import Image

here = pathlib.Path(__file__).parent
said = json.loads((here / "serving.json").read_text())
'''
_LOAD = {
    "stablehlo": (
        "jax, flatbuffers and Pillow",
        "\nfrom jax import export",
        'program = export.deserialize(bytearray((here / "model.stablehlo").read_bytes())).call\n',
    ),
    "onnx": (
        "onnxruntime and Pillow",
        "\nimport onnxruntime",
        'session = onnxruntime.InferenceSession(str(here / "model.onnx"))\n'
        "program = lambda batch: session.run(None, {said['input']['name']: batch})[0]\n",
    ),
}
_INSIDE = """probabilities = np.asarray(program(np.asarray(image)[None]))[0]
"""
_OUTSIDE = """(tall, wide), (height, width) = said["resize"], said["crop"]
shown = said["preprocessing"]
if shown["fit"] == "cover":  # In proportion, and the middle cut out.
    if image.width * tall <= image.height * wide:
        tall = int(wide * image.height / image.width)
    else:
        wide = int(tall * image.width / image.height)
image = image.resize((wide, tall), getattr(Image.Resampling, shown["interpolation"].upper()))
spare, cut_off = (wide - width, tall - height), shown["arithmetic"] == "transformers"
left, top = (side // 2 if cut_off else round(side / 2) for side in spare)
pixels = np.asarray(image.crop((left, top, left + width, top + height)), np.float32) / 255
pixels = (pixels - np.float32(shown["mean"])) / np.float32(shown["std"])
logits = np.asarray(program(pixels[None]))[0]
probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
"""
_TAIL = """for index in probabilities.argsort()[::-1][:5]:
    name = said["class_names"][index] if said["class_names"] else f"class {index}"
    print(f"{100 * probabilities[index]:6.2f} %  {name}")
"""
_USAGE = {
    "stablehlo": "`model.stablehlo` is a program of `jax.export` for CPUs, CUDA and TPUs, the "
    "weights inside; any number of images.",
    "onnx": "`model.onnx` has the weights inside, and class names and preprocessing in its "
    "metadata; any number of images.",
    "timm": """```python
import timm

model = timm.create_model("local-dir:DIRECTORY", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
```""",
    "transformers": """```python
from transformers import pipeline

classify = pipeline("image-classification", model="DIRECTORY")
classify("photo.jpg")
```""",
}


def example(served: Served, layout: str) -> str:
    """Return a program that prints the likeliest classes of an image; "" if it would not be short.

    That is where images are neither resized to cover a size nor exactly to it, or where timm rounds
    sides that are no square otherwise.
    """
    needs, imports, load = _LOAD[layout]
    view, size = served.subject.weights.facts.preprocessing.view, served.subject.size
    larger = all(side >= wanted for side, wanted in zip(view.sides(size), size, strict=True))
    otherwise = view.fit == "cover" and view.arithmetic == "timm" and size[0] != size[1]
    if view.fit not in ("cover", "exact") or not larger or otherwise:
        return ""
    head = _HEAD.format(needs=needs, imports=imports) + load
    opened = 'image = Image.open(sys.argv[1]).convert("RGB")\n'
    return head + opened + (_INSIDE if served.preprocess else _OUTSIDE) + _TAIL


def usage(layout: str, served: Served | None = None) -> str:
    """Say in Markdown how the files are used."""
    text = f"## Use\n\n{_USAGE[layout]}"
    if served is None:
        return text
    parts = [
        f"{name} `{what[0]}`, {what[1].__name__} [{', '.join(map(str, what[2]))}]"
        for name, what in (("In:", served.input), ("out:", served.output))
    ]
    made = "as decoded, RGB" if served.preprocess else "normalised, RGB"
    shown = f"{text}\n\n{', '.join(parts)}; images {made}, channels last."
    if not example(served, layout):
        return shown
    return f"{shown} `serve.py` is an example:\n\n```bash\npython serve.py photo.jpg\n```"
