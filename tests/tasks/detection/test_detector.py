"""A picture's boxes are the same alone and in any batch."""

import pytest
import torch
from small_photos import SMALL_HEADS, TINY

pytest.importorskip("torchvision", exc_type=ImportError)
pytest.importorskip("pycocotools")

from lambda_seq import create_model
from lambda_seq.tasks.detection.detector import Sizes, make_detector

SIZES = [(45, 38), (64, 30), (37, 64), (64, 64)]


def build(masks=True, head_norm=False, mask_width=None, **options):
    torch.manual_seed(0)
    given = {**TINY, "blocks": [1, 1, 1], "placement": "CLL", "zero_init_last": False, **options}
    body = create_model("lambda_resnet50", features_only=True, **given)
    heads = {"head_width": 16, "anchor_scale": 4.0, "detections": 20, "threshold": 0.0, "head_norm": head_norm}
    sizes = Sizes(8, **heads, mask_width=mask_width)
    kept = {"size": 48, "max_size": 96, "mean": [0.5] * 3, "std": [0.2] * 3}
    model = make_detector(body, 3, masks, **kept, sizes=sizes)
    for name, parameter in model.named_parameters():  # so that places, and what stands behind them, matter
        if name.endswith("bias"):
            parameter.data.normal_()
        elif "cls_logits" in name or "roi_heads" in name:
            parameter.data.normal_(std=0.3)
    return model.double().eval()


def pictures(sizes=SIZES):
    random = torch.Generator().manual_seed(1)
    return [torch.rand(3, *size, generator=random, dtype=torch.float64) for size in sizes]


@pytest.mark.parametrize(
    ("masks", "head_norm", "mask_width"), [(True, False, None), (False, False, None), (True, True, 12)]
)
def test_boxes_in_a_batch_are_those_alone(masks, head_norm, mask_width):
    model = build(masks, head_norm, mask_width)
    with torch.no_grad():
        together, alone = model(pictures()), [model([one])[0] for one in pictures()]
    for found, expected in zip(together, alone, strict=True):
        assert len(found["boxes"]) == 20
        assert torch.equal(found["labels"], expected["labels"])
        for name in ("boxes", "scores", *(["masks"] if masks else [])):
            torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-9)


def test_maps_are_zero_behind_a_picture_and_else_those_alone():
    model = build()
    with torch.no_grad():
        batch = model.transform(pictures())[0]
        together = model.backbone(batch.tensors)
        for row, one in enumerate(pictures()):
            alone = model.transform([one])[0]
            height, width = alone.image_sizes[0]
            for (name, found), stride in zip(together.items(), (4, 8, 16, 32), strict=True):
                rows, columns = -(-height // stride), -(-width // stride)
                expected = model.backbone(alone.tensors)[name][0, :, :rows, :columns]
                assert (found[row, :, :rows, :columns] - expected).abs().max() < 1e-9
                assert not found[row, :, rows:].any()
                assert not found[row, :, :, columns:].any()


def test_proposals_learn_from_real_positions_alone():
    model = build()
    batch = model.transform(pictures([(48, 48), (48, 90)]))[0]
    maps = model.backbone(batch.tensors)
    model.rpn(batch, maps)
    anchors = model.rpn.anchor_generator(batch, list(maps.values()))
    nothing = {"boxes": torch.zeros(0, 4, dtype=torch.float64), "labels": torch.zeros(0, dtype=torch.int64)}
    labels, _ = model.rpn.assign_targets_to_anchors(anchors, [nothing, nothing])
    for label, places, (height, width) in zip(labels, anchors, batch.image_sizes, strict=True):
        centres = (places[:, :2] + places[:, 2:]) / 2
        real = (centres[:, 0] < width) & (centres[:, 1] < height)
        assert torch.equal(label == 0, real)
        assert ((label == -1) == ~real).all()


def test_a_picture_of_the_size_is_not_changed():
    batch = build().transform(pictures([(48, 60)]))[0]
    expected = (pictures([(48, 60)])[0] - 0.5) / 0.2
    torch.testing.assert_close(batch.tensors[0, :3, :48, :60], expected)
    assert batch.tensors.shape == (1, 4, 64, 64)


def test_the_heads_are_those_of_torchvision():
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    with torch.device("meta"):
        theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91)
        body = create_model("resnet50", features_only=True)
        ours = make_detector(body, 90, True, size=800, max_size=1333, mean=[0.5] * 3, std=[0.2] * 3, sizes=Sizes())
    shapes = [
        {name: tuple(part.shape) for name, part in model.state_dict().items() if name.startswith(("rpn", "roi_heads"))}
        for model in (ours, theirs)
    ]
    assert shapes[0] == shapes[1]
    assert ours.rpn.anchor_generator.sizes == theirs.rpn.anchor_generator.sizes
    assert ours.roi_heads.box_roi_pool.map_levels.s0 == 224


@pytest.mark.parametrize("anchor_scale", [3.0, 8.0])
def test_objects_are_cut_out_of_the_map_of_the_papers_equation(anchor_scale):
    """Equation 1 of the pyramid's paper, whatever anchors there are; strides are 4, 8 and 16 here."""
    body = create_model("lambda_resnet50", features_only=True, **{**TINY, "blocks": [1, 1, 1], "placement": "CLL"})
    sizes = Sizes(8, 16, anchor_scale)
    model = make_detector(body, 3, True, size=48, max_size=96, mean=[0.5] * 3, std=[0.2] * 3, sizes=sizes)
    sides = torch.tensor([10.0, 50.0, 60.0, 110.0, 115.0, 220.0, 230.0, 900.0])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], 1)
    for pool in (model.roi_heads.box_roi_pool, model.roi_heads.mask_roi_pool):
        assert pool.map_levels([boxes]).tolist() == [0, 0, 0, 0, 1, 1, 2, 2]


def test_heads_with_norms():
    """Convolutions without biases, each with its norm, and two layers; a norm's groups divide the channels."""
    heads = build(head_norm=True).roi_heads
    norms = [
        part
        for head in (heads.box_head, heads.mask_head)
        for part in head.modules()
        if isinstance(part, torch.nn.GroupNorm)
    ]
    assert [(norm.num_groups, norm.num_channels) for norm in norms] == [(8, 8)] * 8
    assert [part.out_features for part in heads.box_head.modules() if hasattr(part, "out_features")] == [16, 16]
    assert heads.box_head(torch.rand(5, 8, 7, 7, dtype=torch.float64)).shape == (5, 16)


def test_the_mask_head_has_a_width_of_its_own():
    heads = build(head_norm=True, mask_width=12).roi_heads
    shapes = [tuple(part.weight.shape[:2]) for part in heads.mask_head.modules() if hasattr(part, "kernel_size")]
    assert shapes == [(12, 8), *[(12, 12)] * 3]
    predictor = heads.mask_predictor
    assert predictor.conv5_mask.weight.shape[:2] == (12, 12)
    assert predictor.mask_fcn_logits.weight.shape[:2] == (4, 12)  # of three classes, and the ground
    masks = predictor(heads.mask_head(torch.rand(2, 8, 14, 14, dtype=torch.float64)))
    assert masks.shape == (2, 4, 28, 28)


@pytest.mark.parametrize("name", ["lambda_resnet26t", "resnet50_se"])
def test_other_networks(name):
    torch.manual_seed(0)
    body = create_model(name, features_only=True, width=8, blocks=[1, 1, 1, 1], placement="C")
    sizes = Sizes(**{key: value for key, value in SMALL_HEADS.items() if key != "anchor_scale"})
    model = make_detector(body, 2, False, size=32, max_size=64, mean=[0.5] * 3, std=[0.2] * 3, sizes=sizes)
    box = {"boxes": torch.tensor([[3.0, 4.0, 20.0, 30.0]]), "labels": torch.tensor([1])}
    losses = model.train()([torch.rand(3, 32, 40)], [box])
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in body.parameters())
