"""Mask R-CNN in the paper's tables: its figures beside torchvision's, and its training step."""

import pickle

import paper_tables as script
import pytest
import torch
from benchmarks.measuring import Measurement, WrongResultError
from paper import detectors
from paper.building import build
from paper.detectors import DetectorTraining, Products, Scenes, make_detector
from paper.figures import computed, job
from paper.rows import TABLES, PaperTable, Row
from test_paper_tables import check_markdown, pretend, run
from torch.utils.flop_counter import FlopCounterMode

torchvision = pytest.importorskip("torchvision", exc_type=ImportError)
pytest.importorskip("pycocotools")

SMALL = {"features_only": True, "width": 4, "blocks": [1, 1, 1, 1]}


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(detectors, "WIDTHS", {"channels": 8, "head_width": 16})


def test_as_many_parameters_as_torchvisions():
    with torch.device("meta"):
        theirs = torchvision.models.detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=81)
    norms = [buffer.numel() for name, buffer in theirs.named_buffers() if name.endswith(("weight", "bias"))]
    expected = sum(norms) + sum(parameter.numel() for parameter in theirs.parameters())  # its norms hold none
    assert computed(TABLES["detector_steps"].rows[0]).parameters == expected


def test_flops_are_all_products():
    (row,) = [row for row in TABLES["detectors"].rows if row.label == "ResNet-101"]
    with torch.device("meta"):
        whole = Products(make_detector(build(row.name, row.options, row.size), row.size)).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            whole(torch.empty(1, 3, row.size, row.size))
    assert computed(row).flops == counter.get_total_flops()


def test_scenes_have_a_mask_for_each_box():
    pictures, targets = Scenes(64, 2, "cpu")()
    assert [picture.shape for picture in pictures] == [(3, 64, 64)] * 2
    for target in targets:
        assert target["boxes"].min() >= 0
        assert target["boxes"].max() <= 64
        sides = target["boxes"][:, 2:] - target["boxes"][:, :2]
        for mask, (width, height) in zip(target["masks"], sides.tolist(), strict=True):
            assert mask.any(0).sum() == pytest.approx(width, abs=1)
            assert mask.any(1).sum() == pytest.approx(height, abs=1)
    assert torch.equal(Scenes(64, 2, "cpu")()[1][1]["masks"], targets[1]["masks"])


def test_a_step_reaches_all_weights(narrow, monkeypatch):
    made = []
    monkeypatch.setattr(detectors, "make_detector", lambda *given: made.append(make_detector(*given)) or made[0])
    step = DetectorTraining("lambda_resnet50", {**SMALL, "placement": "CCLL"}, 64, 2, "32-true", "cpu")()
    step()  # blocks begin as the identity: what is before their last norm learns from the second step on
    reached = set()
    for name, weight in made[0].named_parameters():
        weight.register_hook(lambda gradient, name=name: reached.add(name) if gradient.any() else None)
    step()
    assert reached == {name for name, _ in made[0].named_parameters()}


def test_a_loss_that_is_missing_is_an_error(narrow, monkeypatch):
    class WithoutMasks(torch.nn.Linear):
        def forward(self, pictures, targets):
            return {"loss_classifier": self.weight.sum()}

    monkeypatch.setattr(detectors, "make_detector", lambda *given: WithoutMasks(1, 1))
    step = DetectorTraining("resnet50", SMALL, 64, 2, "32-true", "cpu")()
    with pytest.raises(WrongResultError, match="resnet50: losses are loss_classifier; expected five"):
        step()


def test_steps_travel_to_a_process_of_their_own():
    settings = {"image_size": None, "batch": 2, "precision": "32-true", "device": "cpu", "threads": 1, "budget": 1}
    (row,) = [row for row in TABLES["detector_steps"].rows if row.label == "LambdaResNet-50"]
    made = job(script.key_of(row, settings))
    assert made.prepare == DetectorTraining(row.name, row.options, 512, 2, "32-true", "cpu")
    assert pickle.loads(pickle.dumps(made)) == made


def test_steps_in_the_table(tmp_path, monkeypatch, narrow):
    rows = (Row("C", "resnet50", SMALL, 64, detector=True), Row("backbone", "resnet50", SMALL, 64))
    monkeypatch.setitem(script.TABLES, "tiny", PaperTable("Tiny", rows))
    waiting = pretend(
        monkeypatch, Measurement("measured", "", 0.5, 0.6, 3, 2**20, 2**21, 2**20, 0.1), KeyboardInterrupt()
    )
    assert run(tmp_path) == 130
    assert not waiting
    ((_, _, detector, backbone),) = check_markdown((tmp_path / "paper_tables.md").read_text(encoding="utf-8"))
    assert "| 500 ms |" in detector
    assert "| 4 |" in detector  # pictures per second
    assert "500 ms" not in backbone
