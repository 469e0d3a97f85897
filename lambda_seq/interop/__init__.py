"""Weights from other implementations, with equal outputs, and networks for other programs.

`interop.timm` and `interop.lambda_networks` read weights, for which neither package is needed; they are imported only
to write one of their layers. `interop.onnx` writes ONNX files, `interop.exporting` programs of `torch.export`. Our
networks as classes of transformers are `interop.huggingface`, which needs that and is imported by its own name.
"""

from lambda_seq.interop import exporting, lambda_networks, onnx, timm

__all__ = ["exporting", "lambda_networks", "onnx", "timm"]
