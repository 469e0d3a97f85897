"""The tables of Bello 2021, to the printed decimal."""

import pytest
import torch

from lambda_seq.models import count_flops, create_model, list_models

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
}


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


def test_every_large_network_is_checked():
    assert {name for name in list_models("*resnet*") if not name.endswith(("_small", "_tiny"))} == set(MILLIONS)


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
    model = meta_model("lambda_resnet50_clll", scope=scope, image_size=224)
    assert round(count_flops(model, pictures(224)) / 1e9, 2) == giga


def test_small_networks_take_small_pictures_and_any_options():
    for name in list_models("*resnet*_small") + list_models("*resnet*_tiny"):
        model = meta_model(name, in_channels=1, num_classes=7)
        assert model(torch.empty(2, 1, 28, 28, device="meta")).shape == (2, 7)
    assert sum(p.numel() for p in meta_model("lambda_resnet_tiny").parameters()) < 30_000


@pytest.mark.slow
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
