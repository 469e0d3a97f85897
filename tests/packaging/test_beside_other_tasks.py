"""The wheel beside modules of the user's that are called `tasks`: neither is in the other's way."""

import pytest
from environments import install, run

OWN = "from lambda_seq import LambdaLayer1d\n\nNAME = 'mine'\n\n\ndef layer():\n    return LambdaLayer1d(8, scope=3)\n"
TEST = """\
import tasks
from lambda_seq.tasks.configurations import configurations
from tasks import NAME, layer


def test_mine():
    assert NAME == "mine"
    assert tasks.__name__ == "tasks"
    assert "digits" in configurations()
    assert layer().dim_out == 8
"""
DATA = "from lambda_seq.tasks.data import ImageData\n\n\nclass MyData(ImageData):\n    '''Data of mine.'''\n"
TASK = (
    "from lambda_seq.tasks.classification import Classification\n\n\nclass MyTask(Classification):\n    '''Mine.'''\n"
)


@pytest.fixture(scope="module")
def programs(wheel, tmp_path_factory):
    return install(wheel, tmp_path_factory.mktemp("whole") / "environment")


@pytest.fixture(params=["tasks.py", "tasks/"])
def folder(request, tmp_path):
    """A folder of the user's with a module or a package `tasks`, which has classes and a program of its own."""
    (tmp_path / "test_mine.py").write_text(TEST)
    if request.param == "tasks.py":
        (tmp_path / "tasks.py").write_text(f"{OWN}\n\nif __name__ == '__main__':\n    print(NAME, layer())\n")
    else:
        (tmp_path / "tasks").mkdir()
        (tmp_path / "tasks" / "__init__.py").write_text(OWN)
        (tmp_path / "tasks" / "data.py").write_text(DATA)
        (tmp_path / "tasks" / "something.py").write_text("from tasks import NAME, layer\n\nprint(NAME, layer())\n")
    return tmp_path


def test_pytest_in_it(programs, folder):
    shown, _ = run(programs / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=folder)
    assert "1 passed" in shown


def test_its_own_program(programs, folder):
    module = "tasks.something" if (folder / "tasks").is_dir() else "tasks"
    shown, _ = run(programs / "python", "-m", module, cwd=folder)
    assert shown.startswith("mine LambdaLayer1d(")


@pytest.mark.parametrize("folder", ["tasks/"], indirect=True)
def test_the_command_line_in_it(programs, folder):
    """It takes classes of the user's, and ours by the names that they had when our tasks were called `tasks` too."""
    (folder / "before.yaml").write_text("model:\n  class_path: tasks.classification.Classification\n")
    command = ["fit", "--config", "digits", "--config", "before.yaml", "--data=tasks.data.MyData", "--data.path=x"]
    shown, _ = run(programs / "python", "-m", "lambda_seq", *command, "--print_config", cwd=folder)
    assert "class_path: tasks.data.MyData" in shown
    assert "class_path: lambda_seq.tasks.classification.Classification" in shown


def test_own_classes_of_a_folder_with_tasks_py(programs, tmp_path):
    """Of data and of a task, by the program, which Python starts in another folder."""
    (tmp_path / "tasks.py").write_text(DATA)
    (tmp_path / "mine.py").write_text(TASK)
    words = ["fit", "--config", "digits", "--data=tasks.MyData", "--data.path=x", "--model=mine.MyTask"]
    shown, _ = run(programs / "lambda-seq", *words, "--print_config", cwd=tmp_path)
    assert "class_path: tasks.MyData" in shown
    assert "class_path: mine.MyTask" in shown


def test_an_unknown_configuration_is_said_at_once(programs, tmp_path):
    _, said = run(programs / "lambda-seq", "fit", "--config", "text_clasification", cwd=tmp_path, code=1)
    assert said.startswith("error: --config=text_clasification: there is no such file")
    assert said.count("\n") == 1


@pytest.mark.slow
def test_a_training_from_the_wheel(programs, tmp_path):
    limits = [f"--trainer.limit_{stage}_batches=2" for stage in ("train", "val", "test")]
    command = ["fit", "--config", "digits", "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", *limits]
    shown, said = run(programs / "lambda-seq", *command, cwd=tmp_path)
    assert "test/accuracy" in shown
    assert "Warning" not in said
    assert (tmp_path / "outputs" / "digits" / "model" / "model.safetensors").is_file()
