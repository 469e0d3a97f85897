"""Detection is an extra: nothing of it is imported where it is not used, and what is missing is said in a line."""

import subprocess
import sys

import pytest

from lambda_seq.tasks.detection import Detection, DetectionData, requirements

SOURCE = (
    "import sys, lambda_seq.tasks.cli, lambda_seq.tasks.detection\n"
    "print([name for name in sys.modules if name.partition('.')[0] in ('pycocotools', 'faster_coco_eval')])\n"
    "from lambda_seq.tasks.detection import data, task, results\n"
    "print('lambda_seq.tasks.detection.detector' in sys.modules, 'lambda_seq.tasks.detection.changes' in sys.modules)\n"
)


@pytest.fixture
def without(monkeypatch):
    monkeypatch.setattr(requirements, "find_spec", lambda name: None)


@pytest.mark.parametrize("made", [DetectionData, Detection])
def test_what_is_missing_is_said(without, made):
    with pytest.raises(ModuleNotFoundError) as raised:
        made()
    assert str(raised.value) == ('detection needs torchvision and pycocotools: pip install "lambda-seq[detection]"')


def test_a_command_ends_with_that_line(without, cli):
    result = cli("fit", "--config", "detection", code=1)
    assert result.err.startswith(
        'error: detection needs torchvision and pycocotools: pip install "lambda-seq[detection]"'
    )


@pytest.mark.slow
def test_nothing_is_imported_before():
    done = subprocess.run([sys.executable, "-c", SOURCE], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\nFalse False\n"
