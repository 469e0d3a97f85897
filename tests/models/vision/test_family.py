"""The tables of Bello 2021, to the printed decimal."""

import pytest
import torch

from lambda_seq.models import count_flops, create_model, list_models
from lambda_seq.models.vision.bottleneck import Lambda, SqueezeExcitation

MILLIONS = {
    "resnet50": 25.557,
    "resnet50_se": 28.088,
    "lambda_resnet50": 14.995592,
    "lambda_resnet50_lccc": 25.491,
    "lambda_resnet50_llcc": 24.993,
    "lambda_resnet50_lllc": 21.727,
    "lambda_resnet50_clll": 15.062,
    "lambda_resnet50_ccll": 15.560,
    "lambda_resnet50_cccl": 18.825,
    "lambda_resnet50_u4": 16.040,
    "lambda_resnet50_content": 14.860,
    "lambda_resnet50_position": 14.935,
    "resnet101": 44.605,
    "resnet101_se": 63.619,
    "lambda_resnet101": 25.982,
    "lambda_resnet101_hybrid": 36.867,
    "resnet152": 60.249,
    "resnet152_se": 86.622,
    "lambda_resnet152": 35.0775,
    "lambda_resnet152_hybrid": 51.405,
    # Recomputed, with the recipe of the rows above; nothing printed
    "lambda_resnet50_hybrid": 18.96,
    "lambda_resnet200_hybrid": 57.99,
    "lambda_resnet270_hybrid": 81.37,
    "lambda_resnet350_hybrid": 105.48,
    "lambda_resnet420_hybrid": 124.44,
    # timm's
    "lambda_resnet26t": 10.958272,
    "lambda_resnet26rpt_256": 10.988688,
    "lambda_resnet50ts": 21.536832,
}
# Ablations that change what is computed, not what is learned
LIKE = {
    "lambda_resnet50_no_key_norm": "lambda_resnet50",
    "lambda_resnet50_l2_keys": "lambda_resnet50",
    "lambda_resnet50_softmax_queries": "lambda_resnet50",
}
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
BLOCKS |= {270: (4, 29, 53, 4), 350: (4, 36, 72, 4), 420: (4, 44, 87, 4)}


def meta_model(name, **options):
    with torch.device("meta"):
        return create_model(name, **options)


def pictures(size):
    return torch.empty(1, 3, size, size, device="meta")


def decimals(number):
    return len(f"{number:.10f}".rstrip("0").split(".")[1])


@pytest.mark.parametrize("name", MILLIONS)
def test_parameters(name):
    count = sum(parameter.numel() for parameter in meta_model(name).parameters())
    assert round(count / 1e6, decimals(MILLIONS[name])) == MILLIONS[name]


def parameters(name, **options):
    return sum(parameter.numel() for parameter in meta_model(name, **options).parameters())


@pytest.mark.parametrize(("name", "other"), LIKE.items())
def test_ablations_that_own_no_parameters(name, other):
    assert parameters(name) == parameters(other)


def test_what_ablations_and_attention_own_by_hand():
    whole = parameters("lambda_resnet50")
    blocks, widths = (3, 4, 6, 3), (64, 128, 256, 512)
    norms = sum(2 * (4 * 16 + width // 4) * count for width, count in zip(widths, blocks, strict=True))
    assert parameters("lambda_resnet50_no_batch_norm") == whole - norms
    assert parameters("lambda_resnet50_shared") == whole - 16 * 23**2 * (sum(blocks) - 4)
    assert parameters("lambda_resnet50_convolution") == whole - 16 * (23**2 - 7**2) * sum(blocks)
    halved = sum(
        width * (4 + 1) * 8 + 2 * 4 * 8 for width, count in zip(widths, blocks, strict=True) for _ in range(count)
    )
    assert parameters("lambda_resnet50_k8") == whole - halved - 8 * 23**2 * sum(blocks)
    for scope in (3, 7, 15, 31):
        less = 16 * (23**2 - scope**2) * sum(blocks[1:])
        assert parameters(f"lambda_resnet50_clll_scope{scope}") == parameters("lambda_resnet50_clll") - less

    # Maps that come into the blocks at 224²: a stage's first sees the map of the stage before
    maps = [56] * 3 + [56, 28, 28, 28] + [28] + [14] * 5 + [14, 7, 7]
    table = sum((2 * side - 1) ** 2 for side in maps[3:]) * 16
    local = 16 * 23**2 * sum(blocks[1:])
    assert parameters("lambda_resnet50_clll_global") == parameters("lambda_resnet50_clll") - local + table

    convolutions = sum(9 * width**2 * count for width, count in zip(widths, blocks, strict=True))
    rest = parameters("resnet50") - convolutions
    projections = convolutions // 3  # 3 · width²
    depths = [width // 8 for width, count in zip(widths, blocks, strict=True) for _ in range(count)]
    tables = sum(2 * (2 * side - 1) * depth for side, depth in zip(maps, depths, strict=True))
    assert parameters("resnet50_linear_attention") == rest + projections
    assert parameters("resnet50_attention") == rest + projections + tables
    assert parameters("resnet50_axial") == rest + 2 * projections + tables
    assert parameters("resnet50_local_attention") == rest + projections + 7 * sum(depths)


@pytest.mark.parametrize("depth", BLOCKS)
def test_the_family(depth):
    hybrid, c4 = meta_model(f"lambda_resnet{depth}_hybrid"), meta_model(f"lambda_resnet{depth}_c4")
    assert hybrid.depths == c4.depths == BLOCKS[depth]
    kinds = [["L" if isinstance(block.mix, Lambda) else "C" for block in stage] for stage in hybrid.stages]
    every = {50: 3, 101: 6, 152: 5, 200: 5, 270: 8, 350: 10, 420: 10}[depth]
    last = {50: 3, 101: 18, 152: 30, 200: 30, 270: 48, 350: 60, 420: 80}[depth]
    assert [block + 1 for block, kind in enumerate(kinds[2]) if kind == "L"] == list(range(every, last + 1, every))
    assert {*kinds[0], *kinds[1]} == {"C"}
    assert {*kinds[3]} == {"L"}
    kinds[3] = ["C"] * len(kinds[3])
    assert [["L" if isinstance(block.mix, Lambda) else "C" for block in stage] for stage in c4.stages] == kinds
    for model in (hybrid, c4):
        squeezed = [isinstance(block.se, SqueezeExcitation) for stage in model.stages for block in stage]
        assert squeezed == [index < sum(BLOCKS[depth][:2]) for index in range(sum(BLOCKS[depth]))]


def test_every_large_network_is_checked():
    checked = set(MILLIONS) | set(LIKE)
    checked |= {f"lambda_resnet50_clll_{name}" for name in ("scope3", "scope7", "scope15", "scope31", "global")}
    checked |= {f"lambda_resnet50_{name}" for name in ("shared", "convolution", "no_batch_norm", "k8")}
    checked |= {f"resnet50_{name}" for name in ("linear_attention", "attention", "axial", "local_attention")}
    checked |= {f"lambda_resnet{depth}_{name}" for depth in BLOCKS for name in ("hybrid", "c4")}
    checked |= {f"{name}{depth}" for depth in BLOCKS for name in ("resnet", "lambda_resnet")}
    checked |= {f"resnet{depth}_se" for depth in BLOCKS}
    assert {name for name in list_models("*resnet*") if not name.endswith(("_small", "_tiny"))} == checked


@pytest.mark.parametrize(
    ("name", "giga"),
    [
        ("lambda_resnet50", 12.02),
        ("lambda_resnet50", 12.023),
        ("lambda_resnet50_content", 5.021),
        ("lambda_resnet50_position", 11.885),
    ],
)
def test_flops(name, giga):
    assert round(count_flops(meta_model(name), pictures(224)) / 1e9, decimals(giga)) == giga


@pytest.mark.parametrize(("scope", "giga"), [(3, 5.71), (7, 6.13), (15, 7.81), (23, 10.01), (31, 12.42), (None, 19.40)])
def test_flops_by_scope(scope, giga):
    named = {None: "_global", 23: ""}.get(scope, f"_scope{scope}")
    model = meta_model(f"lambda_resnet50_clll{named}")
    assert round(count_flops(model, pictures(224)) / 1e9, 2) == giga


def test_small_networks_take_small_pictures_and_any_options():
    for name in list_models("*resnet*_small") + list_models("*resnet*_tiny"):
        model = meta_model(name, in_channels=1, num_classes=7)
        assert model(torch.empty(2, 1, 28, 28, device="meta")).shape == (2, 7)
    assert sum(p.numel() for p in meta_model("lambda_resnet_tiny").parameters()) < 30_000


@pytest.mark.slow(seconds=20)
def test_the_tiny_network_learns_handwritten_digits():
    data = pytest.importorskip("sklearn.datasets").load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 8 - 1  # (1797, 1, 8, 8)
    labels = torch.tensor(data.target)
    torch.manual_seed(0)
    order = torch.randperm(len(labels))
    train, test = order[:1437], order[1437:]
    model = create_model("lambda_resnet_tiny", in_channels=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    epochs, batch = 15, 64
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * (len(train) // batch))
    for _ in range(epochs):
        for rows in train[torch.randperm(len(train))].split(batch)[: len(train) // batch]:
            loss = torch.nn.functional.cross_entropy(model(images[rows]), labels[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        accuracy = (model(images[test]).argmax(1) == labels[test]).float().mean().item()
    assert accuracy >= 0.97
