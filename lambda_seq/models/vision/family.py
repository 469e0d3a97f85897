"""Names of the LambdaResNets: the rows of the paper's tables, their family, and small networks for small pictures.

    resnet50 …                 convolutions; _se with squeeze-and-excitation in all blocks
    lambda_resnet50 …          lambda layers: in all stages of 50 (7×7 stem), in c4 and c5 of the deeper ones
    lambda_resnet101_hybrid …  in all of c5 and a few blocks of c4; _c4 in those blocks of c4 alone
    resnet50_attention …       attention layers in the place of the 3×3 convolutions

Options given to `create_model` go before those of the name.
"""

from __future__ import annotations

from typing import Any

from lambda_seq.models.registry import register_model
from lambda_seq.models.vision.resnet import LambdaResNet


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

# What the paper varies: key depth, scope, normalisation, shared position tables.
_register("lambda_resnet50_k8", placement="LLLL", dim_key=8)
_register("lambda_resnet50_shared", placement="LLLL", share_positions=True)
for _scope in (3, 7, 15, 31):
    _register(f"lambda_resnet50_clll_scope{_scope}", placement="CLLL", scope=_scope)
_register("lambda_resnet50_clll_global", placement="CLLL", scope=None, image_size=224)
_register("lambda_resnet50_softmax_queries", placement="LLLL", query_norm="softmax")
_register("lambda_resnet50_l2_keys", placement="LLLL", key_norm="l2")
_register("lambda_resnet50_no_key_norm", placement="LLLL", key_norm="none")
_register("lambda_resnet50_no_batch_norm", placement="LLLL", norm="none")

# The layers it is compared with, in the same network.
_register("lambda_resnet50_convolution", placement="KKKK")
_register("resnet50_linear_attention", placement="EEEE")
_register("resnet50_attention", placement="GGGG", image_size=224)
_register("resnet50_axial", placement="AAAA", image_size=224)
_register("resnet50_local_attention", placement="SSSS")

# The family with the ResNet-D stem: the 350-epoch setup, squeeze-and-excitation in c2 and c3, whose blocks stay
# convolutions. The blocks of c4 that are lambdas in the hybrids are counted from 1.
_FAMILY: dict[int, tuple[tuple[int, int, int, int], range]] = {
    50: ((3, 4, 6, 3), range(3, 4)),
    101: ((3, 4, 23, 3), range(6, 19, 6)),
    152: ((3, 8, 36, 3), range(5, 31, 5)),
    200: ((3, 24, 36, 3), range(5, 31, 5)),
    270: ((4, 29, 53, 4), range(8, 49, 8)),
    350: ((4, 36, 72, 4), range(10, 61, 10)),
    420: ((4, 44, 87, 4), range(10, 81, 10)),
}
for _depth, (_blocks, _lambdas) in _FAMILY.items():
    _deep: dict[str, Any] = {"blocks": _blocks, "stem": "resnet_d"}
    _sparse = "".join("L" if block in _lambdas else "C" for block in range(1, _blocks[2] + 1))
    _squeezed = {**_deep, "se": (1 / 4, 1 / 4, 0, 0)}
    if _depth > 50:  # those of 50 have the other stem
        _register(f"resnet{_depth}", **_deep, placement="CCCC")
        _register(f"resnet{_depth}_se", **_deep, placement="CCCC", se=1 / 4)
        _register(f"lambda_resnet{_depth}", **_squeezed, placement="CCLL")
    _register(f"lambda_resnet{_depth}_hybrid", **_squeezed, placement=("C", "C", _sparse, "L"))
    _register(f"lambda_resnet{_depth}_c4", **_squeezed, placement=("C", "C", _sparse, "C"))

# Small pictures. A scope of 7 on maps of 28², 14², … covers the share that 23 covers of a ResNet-50's.
_small: dict[str, Any] = {"blocks": (2, 2, 2, 2), "stem": "small", "num_classes": 10}
_register("resnet26_small", **_small, placement="CCCC")
_register("lambda_resnet26_small", **_small, placement="LLLL", scope=7)

# For pictures of 8×8 to 32×32 and a minute of one CPU core.
_tiny: dict[str, Any] = {"blocks": (1, 1), "width": 16, "stem": "small", "num_classes": 10}
_register("resnet_tiny", **_tiny, placement="C")
_register("lambda_resnet_tiny", **_tiny, placement="L", scope=7)
