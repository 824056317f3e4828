"""How fast accelerators are."""

# Dense TFLOP/s of the vendors' data sheets, by `device_kind`: bfloat16, and float32 as JAX
# multiplies it by default on that device (TF32 on NVIDIA, bfloat16 passes on TPU).
PEAK_TFLOPS: dict[str, dict[str, float]] = {
    "NVIDIA H200": {"bfloat16": 989.4, "float32": 494.7},
    "NVIDIA H100 80GB HBM3": {"bfloat16": 989.4, "float32": 494.7},
    "NVIDIA H100 PCIe": {"bfloat16": 756.0, "float32": 378.0},
    "NVIDIA A100": {"bfloat16": 312.0, "float32": 156.0},
    "NVIDIA L40S": {"bfloat16": 362.0, "float32": 183.0},
    "TPU v4": {"bfloat16": 275.0, "float32": 275.0},
    "TPU v5 lite": {"bfloat16": 197.0, "float32": 197.0},
    "TPU v5p": {"bfloat16": 459.0, "float32": 459.0},
    "TPU v6 lite": {"bfloat16": 918.0, "float32": 918.0},
}
