"""What a chunk tells later ones, without processes: a scan goes on from it."""

import pytest
import torch

from lambda_seq import functional as LF
from lambda_seq.functional.scan import scan
from lambda_seq.functional.summaries import summary
from lambda_seq.parallel import collectives
from lambda_seq.parallel.content import earlier


class Group:
    """Stands in for a process group of chunks that are all here."""

    def __init__(self, rank, ranks):
        self.rank, self.size = lambda: rank, lambda: ranks


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("key_norm", LF.KEY_NORMS)
def test_a_scan_goes_on_from_earlier_chunks(key_norm, masked, monkeypatch):
    torch.manual_seed(0)
    sizes = (20, 1, 6)
    query, key, value = (
        torch.randn(2, count, sum(sizes), width, dtype=torch.float64, requires_grad=True)
        for count, width in ((3, 4), (2, 4), (2, 5))
    )
    grad = torch.randn(2, 3, sum(sizes), 5, dtype=torch.float64)
    seen = 3 * key
    if masked:  # nothing real in the first chunk of a row
        hidden = torch.zeros(2, 1, sum(sizes), 1, dtype=torch.bool)
        hidden[0, :, :20] = True
        seen = seen.masked_fill(hidden, -torch.inf if key_norm == "softmax" else 0)
    whole, _ = scan(query, seen, value, key_norm)
    expected = torch.autograd.grad(whole, (query, key, value), grad, retain_graph=True)

    chunks = list(zip(*(part.split(sizes, 2) for part in (query, seen, value)), strict=True))
    summaries = [summary(keys, values, key_norm) for _, keys, values in chunks]
    packed = torch.stack([torch.cat([one.sums, one.norm.mT, one.top.mT], -1) for one in summaries])
    monkeypatch.setattr(collectives, "gathered", lambda x, group: packed)
    parts = [
        scan(*chunk, key_norm, earlier(summaries[rank], Group(rank, len(sizes))))[0]
        for rank, chunk in enumerate(chunks)
    ]
    together = torch.cat(parts, 2)
    torch.testing.assert_close(together, whole, rtol=1e-9, atol=1e-9)
    found = torch.autograd.grad(together, (query, key, value), grad)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)
