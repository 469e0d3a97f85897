"""`import lambda_seq` imports torch only once a name is asked for; nobody can tell otherwise."""

import subprocess
import sys

import pytest

import lambda_seq


def run(code):
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_torch_waits():
    run("import sys, lambda_seq; assert lambda_seq.__version__ and 'torch' not in sys.modules")


def test_all_names_are_there():
    run(
        "from lambda_seq import *\n"
        "import lambda_seq, pickle, sys\n"
        "assert LambdaLayer1d is lambda_seq.LambdaLayer1d is lambda_seq.layers.LambdaLayer1d\n"
        "assert functional.lambda_layer is lambda_seq.functional.api.lambda_layer\n"
        "assert lambda_seq.parallel.make_mesh and lambda_seq.interop.timm\n"
        "assert 'timm' not in sys.modules\n"
        "assert set(lambda_seq.__all__) <= set(dir(lambda_seq))\n"
        "assert pickle.loads(pickle.dumps(LambdaLayer1d)) is LambdaLayer1d\n"
    )


@pytest.mark.slow
def test_a_name_that_compiled_code_asks_for_first():
    run(
        "import torch, lambda_seq\n"
        "@torch.compile(backend='eager', fullgraph=True)\n"
        "def f(q, k, v, e): return lambda_seq.functional.lambda_layer(q, k, v, e, algorithm='naive')\n"
        "sizes = (1, 2, 8, 4), (1, 1, 8, 4), (1, 1, 8, 3), (1, 4, 5)\n"
        "assert f(*map(torch.randn, sizes)).shape == (1, 2, 8, 3)\n"
    )


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="module 'lambda_seq' has no attribute 'LambdaLayer3d'"):
        _ = lambda_seq.LambdaLayer3d
    with pytest.raises(ImportError, match="LambdaLayer3d"):
        from lambda_seq import LambdaLayer3d  # noqa: F401
