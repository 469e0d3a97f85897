"""The tables of Bello 2021 as printed, each row with the network that it stands for.

I. Bello, "LambdaNetworks: Modeling Long-Range Interactions Without Attention", ICLR 2021 (arXiv 2102.08602). Figures
are strings, so that they keep their printed decimals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """A row: the network, and what the paper prints.

    Attributes:
        label: what the row is called, once in its table.
        name: of the registry.
        options: given to `create_model` beside the name; what JSON can hold.
        size: rows and columns of the pictures.
        parameters: printed, in millions.
        flops: printed, in 10⁹ per picture.
        memory: printed, in GB: attention maps, or position embeddings gathered for every pair of positions.
        memory_bytes: of a number, in the printed memory.
        speed: printed, pictures per second on the paper's accelerators.
        score: printed, top-1 in %, or AP.
        checked: columns that are known to follow from the recipe to the printed decimal.
        materialised: attention with its map in memory, in place of the fused kernel.
        detector: Mask R-CNN on the network.
    """

    label: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    size: int = 224
    parameters: str | None = None
    flops: str | None = None
    memory: str | None = None
    memory_bytes: int = 4
    speed: str | None = None
    score: str | None = None
    checked: tuple[str, ...] = ()
    materialised: bool = False
    detector: bool = False


@dataclass(frozen=True)
class PaperTable:
    """Rows under a title.

    Attributes:
        score: what the score is.
        memory: with the column of attention maps and position embeddings.
        notes: what to know beside the figures.
    """

    title: str
    rows: tuple[Row, ...]
    score: str = "top-1 (%)"
    memory: bool = False
    notes: Sequence[str] = ()


SIZE, WORK, BOTH = ("parameters",), ("flops",), ("parameters", "flops")


def _placement(letters: str, parameters: str, score: str, checked: tuple[str, ...] = SIZE) -> Row:
    name = f"lambda_resnet50_{letters.lower()}"
    return Row(" ".join(letters), name, parameters=parameters, score=score, checked=checked)


def _scope(scope: str, flops: str, score: str) -> Row:
    name = {"23×23": "", "global": "_global"}.get(scope, f"_scope{scope.split('×')[0]}")
    return Row(scope, f"lambda_resnet50_clll{name}", flops=flops, score=score, checked=WORK)


def _deep(label: str, name: str, size: int, parameters: str, speed: str, score: str) -> Row:
    return Row(label, name, size=size, parameters=parameters, speed=speed, score=score, checked=SIZE)


def _backbone(label: str, name: str, score: str) -> Row:
    return Row(label, name, {"features_only": True}, size=1024, score=score)


def _detector(label: str, name: str, score: str | None = None, size: int = 1024) -> Row:
    return Row(label, name, {"features_only": True}, size=size, score=score, detector=True)


_COCO = (  # box AP and mask AP
    ("ResNet-101", "resnet101", "48.2 / 42.6"),
    ("ResNet-101 + SE", "resnet101_se", "48.5 / 42.8"),
    ("LambdaResNet-101", "lambda_resnet101_hybrid", "49.4 / 43.5"),
    ("ResNet-152", "resnet152", "48.9 / 43.2"),
    ("ResNet-152 + SE", "resnet152_se", "49.4 / 43.5"),
    ("LambdaResNet-152", "lambda_resnet152_hybrid", "50.0 / 43.9"),
)
_LAMBDA: dict[str, Any] = {"memory_bytes": 2}

TABLES = {
    "placement": PaperTable(
        "ResNet-50 at 224²: where the lambda layers are, and what they are made of",
        (
            Row("C C C C", "resnet50", parameters="25.6", score="76.9", checked=SIZE),
            Row("C C C C + SE 1/16", "resnet50_se", parameters="28.1", score="77.6", checked=SIZE),
            _placement("LCCC", "25.5", "77.3"),
            _placement("LLCC", "25.0", "77.2"),
            _placement("LLLC", "21.7", "77.8"),
            Row("L L L L", "lambda_resnet50", parameters="15.0", flops="12.0", score="78.4", checked=BOTH),
            _placement("CLLL", "15.1", "78.3"),
            _placement("CCLL", "15.4", "78.3", ()),
            _placement("CCCL", "18.8", "77.3"),
            Row("L L L L, u 4, 7×7", "lambda_resnet50_u4", parameters="16.0", score="78.9", checked=SIZE),
            Row(
                "content only",
                "lambda_resnet50_content",
                parameters="14.9",
                flops="5.0",
                score="68.8",
                checked=BOTH,
            ),
            Row(
                "position only",
                "lambda_resnet50_position",
                parameters="14.9",
                flops="11.9",
                score="78.1",
                checked=BOTH,
            ),
            Row("content + position", "lambda_resnet50", parameters="14.9", flops="12.0", score="78.4"),
        ),
        notes=(
            "C C L L is printed as 15.4: the recipe that gives every other row gives 15.560. Content + position is "
            "the row L L L L again, printed there as 15.0.",
        ),
    ),
    "scope": PaperTable(
        "ResNet-50, C L L L, at 224²: scope of the position lambdas",
        (
            _scope("3×3", "5.7", "77.6"),
            _scope("7×7", "6.1", "78.2"),
            _scope("15×15", "7.8", "78.5"),
            _scope("23×23", "10.0", "78.3"),
            _scope("31×31", "12.4", "78.5"),
            _scope("global", "19.4", "78.4"),
        ),
    ),
    "normalisation": PaperTable(
        "ResNet-50, L L L L, at 224²: what is normalised",
        (
            Row("softmax keys", "lambda_resnet50", score="78.4"),
            Row("softmax keys and queries", "lambda_resnet50_softmax_queries", score="78.1"),
            Row("L2 keys", "lambda_resnet50_l2_keys", score="78.0"),
            Row("none", "lambda_resnet50_no_key_norm", score="70.0"),
            Row("no batch norm on q and v", "lambda_resnet50_no_batch_norm", score="76.2"),
        ),
    ),
    "deep": PaperTable(
        "ResNet-101 at 224² and ResNet-152 at 256²: all lambda layers, and few",
        (
            _deep("101", "resnet101", 224, "44.6", "4600", "81.3"),
            _deep("101 + SE", "resnet101_se", 224, "63.6", "4000", "81.8"),
            _deep("101 + 3 lambdas", "lambda_resnet101_hybrid", 224, "36.9", "4040", "82.3"),
            _deep("101, all lambdas", "lambda_resnet101", 224, "26.0", "2560", "82.6"),
            _deep("152", "resnet152", 256, "60.2", "2780", "82.5"),
            _deep("152 + SE", "resnet152_se", 256, "86.6", "2400", "83.0"),
            _deep("152 + 6 lambdas", "lambda_resnet152_hybrid", 256, "51.4", "2400", "83.4"),
            _deep("152, all lambdas", "lambda_resnet152", 256, "35.1", "1480", "83.4"),
        ),
    ),
    "family": PaperTable(
        "The family at 224²: lambda layers in c5 and a few blocks of c4",
        tuple(
            Row(f"LambdaResNet-{depth}", f"lambda_resnet{depth}_hybrid") for depth in (50, 101, 152, 200, 270, 350, 420)
        ),
        notes=("The paper prints the blocks of these networks, not their sizes.",),
    ),
    "layers": PaperTable(
        "The layers in a ResNet-50 at 224², batch 128: memory of attention maps, or of gathered position embeddings",
        (
            Row("global self-attention", "resnet50_attention", memory="120", speed="OOM", score="OOM"),
            Row("axial self-attention", "resnet50_axial", memory="4.8", speed="960", score="77.5"),
            Row("local self-attention 7×7", "resnet50_local_attention", speed="440", score="77.4"),
            Row("lambda", "lambda_resnet50", memory="0.96", speed="1160", score="78.4", **_LAMBDA),
            Row("lambda k=8", "lambda_resnet50_k8", memory="0.48", speed="1640", score="77.9", **_LAMBDA),
            Row(
                "lambda, shared embeddings",
                "lambda_resnet50_shared",
                **{"memory": "0.31", "speed": "1210", "score": "78.0", **_LAMBDA},
            ),
            Row("lambda convolution 7×7", "lambda_resnet50_convolution", speed="1100", score="78.1", **_LAMBDA),
        ),
        memory=True,
        notes=(
            "Maps: b·h·n·m numbers of each attention layer (axial b·h·n·(H + W), local b·h·n·r), batch 128, 8 heads; "
            "lambda layers k·n·m, or k·r as a convolution, whatever the batch, once a stage if shared; at a stage's "
            "output resolution. The printed figures are reached with 4 bytes a number for attention and 2 for "
            "lambdas: like for like, global attention takes 64 times what lambdas do, not 125. The lambdas themselves "
            "are not counted. Nothing of these sizes is made here: attention is fused, embeddings are not gathered.",
        ),
    ),
    "mixers": PaperTable(
        "A training step of ResNet-50 with each mixer",
        (
            Row("C: convolution", "resnet50", parameters="25.6", score="76.9", checked=SIZE),
            Row("C + SE 1/16", "resnet50_se", parameters="28.1", score="77.6", checked=SIZE),
            Row("E: linear attention", "resnet50_linear_attention"),
            Row("G: global self-attention", "resnet50_attention", speed="OOM", score="OOM"),
            Row("A: axial self-attention", "resnet50_axial", speed="960", score="77.5"),
            Row("S: local self-attention 7×7", "resnet50_local_attention", speed="440", score="77.4"),
            Row(
                "L: lambda layer",
                "lambda_resnet50",
                parameters="15.0",
                flops="12.0",
                speed="1160",
                score="78.4",
                checked=BOTH,
            ),
            Row("K: lambda convolution 7×7", "lambda_resnet50_convolution", speed="1100", score="78.1"),
            Row("G, materialised", "resnet50_attention", speed="OOM", score="OOM", materialised=True),
        ),
    ),
    "coco": PaperTable(
        "Backbones of a Mask R-CNN on COCO, at 1024², without its heads",
        tuple(_backbone(*printed) for printed in _COCO),
        score="box AP / mask AP",
        notes=("Which lambda layers these backbones have is not printed; those of the family are taken.",),
    ),
    "detectors": PaperTable(
        "Mask R-CNN on COCO, at 1024², whole",
        tuple(_detector(*printed) for printed in _COCO),
        score="box AP / mask AP",
        notes=(
            "Backbone, pyramid of 256 channels, proposals, and heads for 80 classes as torchvision has them. FLOPS are "
            "those of a picture in use: 1,000 proposals with boxes, 100 detections with masks; cutting these out of "
            "the maps is not counted. AP is what the paper prints of its own detectors; nothing of it was measured "
            "here.",
        ),
    ),
    "detector_steps": PaperTable(
        "A training step of Mask R-CNN with 50 layers, at 512²",
        (
            _detector("ResNet-50", "resnet50", size=512),
            _detector("ResNet-50 + SE", "resnet50_se", size=512),
            _detector("LambdaResNet-50", "lambda_resnet50_hybrid", size=512),
            _detector("ResNet-50, all lambdas", "lambda_resnet50", size=512),
        ),
        notes=("Pictures are noise with 8 boxes each, weights random; the heads learn from 512 proposals a picture.",),
    ),
}
