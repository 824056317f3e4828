"""Models for programs that know nothing of this project: StableHLO, ONNX, timm, transformers."""
