"""Pure functions on tensors: the lambda layer, its algorithms and the plan that chooses among them."""

from typing import get_args

from lambda_seq.functional.api import lambda_layer
from lambda_seq.functional.calibration import calibrate
from lambda_seq.functional.exponentials import Exponentials
from lambda_seq.functional.packing import Packing, packed_lambda_layer
from lambda_seq.functional.plan import Candidate, Plan, plan
from lambda_seq.functional.position.registry import ALGORITHMS
from lambda_seq.functional.problem import KeyNorm
from lambda_seq.functional.rates import Rates
from lambda_seq.functional.streaming import StreamState, stream

KEY_NORMS = get_args(KeyNorm)

__all__ = [
    "ALGORITHMS",
    "KEY_NORMS",
    "Candidate",
    "Exponentials",
    "Packing",
    "Plan",
    "Rates",
    "StreamState",
    "calibrate",
    "lambda_layer",
    "packed_lambda_layer",
    "plan",
    "stream",
]
