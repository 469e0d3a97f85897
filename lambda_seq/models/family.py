"""Names of the LambdaResNets: the rows of the paper's tables, and small networks for small pictures."""

from __future__ import annotations

from typing import Any

from lambda_seq.models.registry import register_model
from lambda_seq.models.resnet import LambdaResNet


def _register(name: str, **options: Any) -> None:
    register_model(name, **options)(LambdaResNet)


# ResNet-50 at 224², 7×7 stem: the 90-epoch setup.
_register("resnet50", placement="CCCC")
_register("resnet50_se", placement="CCCC", se=1 / 16)
_register("lambda_resnet50", placement="LLLL")
for _placement in ("LCCC", "LLCC", "LLLC", "CLLL", "CCLL", "CCCL"):
    _register(f"lambda_resnet50_{_placement.lower()}", placement=_placement)
_register("lambda_resnet50_u4", placement="LLLL", dim_intra=4, scope=7)
_register("lambda_resnet50_content", placement="LLLL", position=False)
_register("lambda_resnet50_position", placement="LLLL", content=False)

# Deeper networks with the ResNet-D stem: the 350-epoch setup. Lambdas stand in c4 and c5, or in all of c5 and every
# few blocks of c4 (hybrid); squeeze-and-excitation in c2 and c3, whose blocks stay convolutions.
for _depth, _blocks, _every, _last in ((101, (3, 4, 23, 3), 6, 18), (152, (3, 8, 36, 3), 5, 30)):
    _deep: dict[str, Any] = {"blocks": _blocks, "stem": "resnet_d"}
    _sparse = "".join("L" if block % _every == 0 and block <= _last else "C" for block in range(1, _blocks[2] + 1))
    _register(f"resnet{_depth}", **_deep, placement="CCCC")
    _register(f"resnet{_depth}_se", **_deep, placement="CCCC", se=1 / 4)
    _register(f"lambda_resnet{_depth}", **_deep, placement="CCLL", se=(1 / 4, 1 / 4, 0, 0))
    _register(f"lambda_resnet{_depth}_hybrid", **_deep, placement=("C", "C", _sparse, "L"), se=(1 / 4, 1 / 4, 0, 0))

# Small pictures. A scope of 7 on maps of 28², 14², … covers the share that 23 covers of a ResNet-50's.
_small: dict[str, Any] = {"blocks": (2, 2, 2, 2), "stem": "small", "num_classes": 10}
_register("resnet26_small", **_small, placement="CCCC")
_register("lambda_resnet26_small", **_small, placement="LLLL", scope=7)

# For pictures of 8×8 to 32×32 and a minute of one CPU core.
_tiny: dict[str, Any] = {"blocks": (1, 1), "width": 16, "stem": "small", "num_classes": 10}
_register("resnet_tiny", **_tiny, placement="C")
_register("lambda_resnet_tiny", **_tiny, placement="L", scope=7)
