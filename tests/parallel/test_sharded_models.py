"""Networks on chunks of sequences learn what they learn from whole ones."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from lambda_seq import LambdaEncoder, LambdaLayer1d, LambdaLM, parallel
from lambda_seq.layers import UNSHARDED

STEPS = 10
UNEVEN = [None, (3, 17, 1, 21)]  # lengths of chunks, 42 positions together
SMALL = {"dim": 8, "depth": 2, "heads": 2, "dim_key": 3, "vocab_size": 20}

ENCODERS = {
    "local": {"scope": 5},
    "global": {"scope": None, "max_length": 60, "position": ["table", "multiscale"], "pool": "attention"},
    "exponential": {"scope": None, "position": "exponential", "pool": "max", "norm": "rms", "block_norm": "layer"},
    "causal": {"scope": 5, "causal": True, "pool": "last", "norm": "rms"},
    "strided": {"scope": 3, "strides": [2, 2], "block_norm": "batch", "pool": "first"},
    "causal_strided": {"scope": 3, "strides": [4], "causal": True},
    "ngrams": {"scope": 3, "stem": "ngrams", "buckets": 50, "orders": (1, 2, 4), "pool": "sqrt"},
    "counted_ngrams": {"scope": 3, "stem": "ngrams", "buckets": 20, "tf": "log", "pool": "sqrt"},
    "deep_drop": {"scope": 3, "stochastic_depth": 0.5, "norm": "layer", "block_norm": "layer"},
    "dropped": {"scope": 5, "mixing_dropout": 0.3, "position_dropout": 0.3, "query_bias": 1.0, "layer_scale": 0.5},
    "dropped_exponential": {"scope": None, "position": "exponential", "causal": True, "position_dropout": 0.3},
    "shared": {"scope": 5, "share_blocks": True, "ff": "gated"},
}
LMS = {
    "local": {"scope": 4},
    "exponential": {"scope": None, "position": "exponential"},
    "mixed": {"scope": [None, 3], "max_length": 60, "dim_intra": 2, "position": ["table", "multiscale"]},
}


# The encoders of several documents in a row: convolutions of a stem mix them, and are refused
READERS = {
    **{name: ENCODERS[name] for name in ("local", "global", "exponential", "causal", "ngrams", "counted_ngrams")},
    "first": {"scope": 5, "pool": "first", "key_norm": "l2", "dim_intra": 2},
    "last": {"scope": None, "max_length": 60, "pool": "last", "norm": "batch"},
    "causal_exponential": {"scope": None, "position": "exponential", "causal": True},
}


def network(kind, options, dtype):
    torch.manual_seed(3)
    make = {"encoder": LambdaEncoder, "lm": LambdaLM}[kind]
    model = make(**SMALL, **({"num_classes": 3} if kind == "encoder" else {}), **options)
    if getattr(model, "pool", None) is not None and model.pool.query is not None:
        torch.nn.init.normal_(model.pool.query)
    return model.to(dtype)


def batches(rows, length):
    """Tokens, the mask (padding in front and behind, some rows not masked at all) and a class for each row."""
    generator = torch.Generator().manual_seed(4)
    for _ in range(STEPS):
        mask = torch.ones(rows, length, dtype=torch.bool)
        mask[0, length // 3 :] = False
        mask[1, :8] = False  # a multiple of all strides
        yield (
            torch.randint(0, 20, (rows, length), generator=generator),
            mask,
            torch.randint(0, 3, (rows,), generator=generator),
        )


def loss_of(kind, model, x, mask, label, total=lambda x: x, *, following=None):
    """Of whole sequences; `total` sums over chunks, `following` is the token after the last one."""
    if kind == "encoder":
        return F.cross_entropy(model(x, mask), label)
    nats = F.cross_entropy(model(x, mask).flatten(0, 1), following.flatten(), reduction="none").view_as(x)
    return total((nats * mask).sum()) / total(mask.sum())


def following(x):
    return x.roll(-1, 1)


def rows_of_documents():
    """Tokens, mask and ids of rows whose documents end within chunks, between them, and fill some."""
    x, mask, _ = next(iter(batches(3, 42)))
    documents = torch.stack([(torch.arange(42) >= end).long() for end in (5, 21, 40)])
    documents[2, 30:35] = -1
    return x, mask, documents


def cut(x, sizes, mesh):
    """This process's chunk, of these lengths; as `shard_sequence` cuts if there are none."""
    if sizes is None:
        return parallel.shard_sequence(x, mesh)
    return x.split(sizes, 1)[mesh.get_local_rank("sequence")]


def packed(options, dtype, sizes=None, ranks=None):
    """Gradients and logits of a language model of rows that hold several documents, by `ranks` processes or one."""
    mesh = None if ranks is None else parallel.make_mesh(ranks)
    model = parallel.parallelize(network("lm", options, dtype), mesh) if mesh else network("lm", options, dtype)
    x, mask, documents = rows_of_documents()
    target = following(x)
    parts = [x, mask, documents, target]
    if mesh:
        parts = [cut(part, sizes, mesh) for part in parts]
    x, mask, documents, target = parts
    logits = model(x, mask, documents)
    real = mask & (documents >= 0)
    nats = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view_as(x)
    loss = (nats * real).sum()
    (parallel.sum_over_sequence(loss, mesh) if mesh else loss).backward()
    logits = logits.detach() * real[..., None]
    if mesh:
        parallel.average_gradients(model, mesh)
        logits = parallel.gather_sequence(logits, mesh)
    return {"logits": logits} | {name: parameter.grad for name, parameter in model.named_parameters()}


def classified(options, dtype, hidden, sizes=None, ranks=None):
    """Gradients, statistics and the logits of each document, of an encoder, by `ranks` processes or one."""
    mesh = None if ranks is None else parallel.make_mesh(ranks)
    model = network("encoder", options, dtype)
    if mesh:
        parallel.parallelize(model, mesh)
    x, mask, documents = rows_of_documents()
    if hidden:
        documents = torch.where(mask, documents, -1)
        mask = None
    parts = [x, mask, documents]
    if mesh:
        parts = [None if part is None else cut(part, sizes, mesh) for part in parts]
    logits = model(*parts)
    F.cross_entropy(logits, torch.arange(len(logits)) % 3).backward()
    if mesh:
        parallel.average_gradients(model, mesh)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {"logits": logits.detach()} | gradients | dict(model.named_buffers())


def optimizer_of(model):
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def learned(kind, options, dtype, rows, length, replicas):
    """Parameters and buffers after some steps of one process, and the first gradients and outputs."""
    model = network(kind, options, dtype)
    optimizer = optimizer_of(model)
    first = {}
    for x, mask, label in batches(rows, length):
        optimizer.zero_grad()
        # A replica has its own batch statistics
        parts = zip(x.chunk(replicas), mask.chunk(replicas), label.chunk(replicas), strict=True)
        for replica, part in enumerate(parts):
            buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
            loss = loss_of(kind, model, *part, following=following(part[0]))
            (loss / replicas).backward()
            if replica:  # the first one's count
                for name, buffer in model.named_buffers():
                    buffer.copy_(buffers[name])
        first = first or {f"gradient of {name}": value.grad.clone() for name, value in model.named_parameters()}
        optimizer.step()
    return first | {name: value.detach() for name, value in model.state_dict().items()}


def learned_in_chunks(kind, options, dtype, rows, length, ranks):
    """The same on every process, `ranks` of them for a sequence and the others beside."""
    mesh = parallel.make_mesh(ranks)
    model = parallel.parallelize(network(kind, options, dtype), mesh)
    replica, replicas = mesh.get_local_rank("data"), mesh.size(0)
    wrapped = DistributedDataParallel(model) if replicas > 1 else model
    optimizer = optimizer_of(model)
    multiple = model.stem.stride
    first = {}

    def total(value):
        return parallel.sum_over_sequence(value, mesh)

    for batch in batches(rows, length):
        x, mask, label = (part.chunk(replicas)[replica] for part in batch)
        pieces = [parallel.shard_sequence(part, mesh, multiple=multiple) for part in (x, mask, following(x))]
        optimizer.zero_grad()
        loss_of(kind, wrapped, *pieces[:2], label, total, following=pieces[2]).backward()
        if replicas == 1:
            parallel.average_gradients(model, mesh)
        first = first or {f"gradient of {name}": value.grad.clone() for name, value in model.named_parameters()}
        optimizer.step()
    return first | {name: value.detach() for name, value in model.state_dict().items()}


def compare(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        error = (found[name] - tensor).abs().max() / tensor.abs().max().clamp_min(1)
        assert error < tolerance, f"{name}: {error:.2e}"


def check(processes, kind, options, dtype, tolerance, *, ranks=4, rows=2, length=42):
    replicas = processes.ranks // ranks
    expected = learned(kind, options, dtype, rows, length, replicas)
    results = processes.run(learned_in_chunks, kind, options, dtype, rows, length, ranks)
    for rank, found in enumerate(results):
        if rank >= ranks:  # DistributedDataParallel hands on the first replica's buffers when a step begins
            for name in (name for name in expected if "running" in name):
                found[name] = results[0][name]
        compare(found, expected, tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "deep_drop"])
def test_encoders_learn_the_same(four, name):
    check(four, "encoder", ENCODERS[name], torch.float64, 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", LMS)
def test_language_models_learn_the_same(four, name):
    check(four, "lm", LMS[name], torch.float64, 1e-9)


@pytest.mark.parametrize("sizes", UNEVEN, ids=str)
@pytest.mark.parametrize("name", LMS)
def test_language_models_read_rows_of_documents(four, name, sizes):
    expected = packed(LMS[name], torch.float64)
    for found in four.run(packed, LMS[name], torch.float64, sizes, 4):
        compare(found, expected, 1e-9)


@pytest.mark.parametrize("sizes", UNEVEN, ids=str)
@pytest.mark.parametrize("name", READERS)
def test_encoders_read_rows_of_documents(four, name, sizes):
    """Chunks with ends of documents, with nothing but a part of one, and with padding only."""
    hidden = sizes is None  # once by negative ids in place of a mask
    expected = classified(READERS[name], torch.float64, hidden)
    assert len(expected["logits"]) == 7
    for found in four.run(classified, READERS[name], torch.float64, hidden, sizes, 4):
        compare(found, expected, 1e-9)


@pytest.mark.slow
def test_in_float32(four):
    check(four, "encoder", ENCODERS["local"], torch.float32, 1e-5)
    check(four, "lm", LMS["exponential"], torch.float32, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "options"), [("encoder", ENCODERS["strided"]), ("lm", LMS["mixed"])])
def test_beside_data_parallelism(four, kind, options):
    check(four, kind, options, torch.float64, 1e-9, ranks=2, rows=4)


def dropped(options):
    mesh = parallel.make_mesh(4)
    model = parallel.parallelize(network("encoder", options, torch.float64), mesh)
    torch.manual_seed(torch.distributed.get_rank())
    x = torch.randint(0, 20, (16, 42), generator=torch.Generator().manual_seed(5))
    return model(parallel.shard_sequence(x, mesh)).detach()


def test_stochastic_depth_leaves_out_whole_rows(four):
    first, *others = four.run(dropped, ENCODERS["deep_drop"])
    for logits in others:
        torch.testing.assert_close(logits, first, rtol=0, atol=0)


@torch.no_grad()
def used_in_turns():
    mesh = parallel.make_mesh(2)
    model = network("encoder", ENCODERS["local"], torch.float64).eval()
    x = torch.randint(0, 20, (2, 31), generator=torch.Generator().manual_seed(6))
    alone = model(x)
    with parallel.sequence_parallel(model, mesh):
        together = model(parallel.shard_sequence(x, mesh))
        copied = copy.deepcopy(model)(parallel.shard_sequence(x, mesh))
        restored = pickle.loads(pickle.dumps(model))(x)
    again = model(x)
    parallel.parallelize(model, mesh)
    parallel.parallelize(model, None)
    assert all(module.sequence is UNSHARDED for module in model.modules() if hasattr(module, "sequence"))
    return alone, together, copied, restored, again


def test_one_module_serves_both(four):
    alone, *others = four.run(used_in_turns)[3]
    for logits in others:
        torch.testing.assert_close(logits, alone, rtol=1e-12, atol=1e-12)


def gathered(lengths):
    mesh = parallel.make_mesh(4)
    rank = torch.distributed.get_rank()
    x = torch.full((2, lengths[rank], 3), float(rank), dtype=torch.float64, requires_grad=True)
    whole = parallel.gather_sequence(x, mesh)
    (whole.sum() * (rank + 1)).backward()
    cut = parallel.shard_sequence(whole.detach(), mesh, dim=1)
    return whole.detach(), x.grad, cut.shape[1]


def test_gathering_is_the_way_back(four):
    results = four.run(gathered, [3, 1, 4, 2])
    for whole, grad, _ in results:
        assert whole[0, :, 0].tolist() == [0, 0, 0, 1, 2, 2, 2, 2, 3, 3]
        assert (grad == 1 + 2 + 3 + 4).all()
    assert [count for *_, count in results] == [3, 3, 2, 2]


def layer_with(norm, mixed):
    """Outputs of a layer under autocast, and its first process's traffic."""
    mesh = parallel.make_mesh(4)
    torch.manual_seed(7)
    layer = LambdaLayer1d(8, heads=2, dim_key=4, scope=5, norm=norm)
    x = torch.randn(2, 40, 8)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        expected = layer(x).detach()
        parallel.parallelize(layer, mesh)
        y = layer(parallel.shard_sequence(x, mesh))
    y.float().sum().backward()
    return expected, parallel.gather_sequence(y.detach(), mesh)


@pytest.mark.parametrize("norm", ["rms", "batch"])
def test_in_half_precision(four, norm):
    for expected, found in four.run(layer_with, norm, True):
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=0.03, atol=0.03)


def sent(length):
    """Bytes that this process sends in a training step of a local layer."""
    mesh = parallel.make_mesh(4)
    layer = parallel.parallelize(LambdaLayer1d(8, heads=2, dim_key=4, scope=5, norm="rms"), mesh)
    x = parallel.shard_sequence(torch.zeros(1, length, 8), mesh)
    with parallel.count_traffic() as traffic:
        layer(x).sum().backward()
    return traffic.total


def test_bytes_do_not_depend_on_the_length(four):
    short, long = (max(four.run(sent, length)) for length in (41, 163))
    assert short == long
    values, keys, scope = 4, 4, 5
    assert 4 * (scope - 1) * values <= long <= 8 * 4 * (keys + scope) * values


def sent_for_documents(length, causal):
    """The same of rows with a document that all processes have a part of."""
    mesh = parallel.make_mesh(4)
    layer = LambdaLayer1d(8, heads=2, dim_key=4, scope=5, norm="rms", causal=causal)
    parallel.parallelize(layer, mesh)
    documents = (torch.arange(length) > 5).long()[None]
    x, documents = (parallel.shard_sequence(part, mesh) for part in (torch.zeros(1, length, 8), documents))
    with parallel.count_traffic() as traffic:
        layer(x, documents=documents).sum().backward()
    return traffic.total


@pytest.mark.parametrize("causal", [False, True])
def test_bytes_for_documents_do_not_depend_on_the_length_either(four, causal):
    short, long = (max(four.run(sent_for_documents, length, causal)) for length in (41, 163))
    assert 0 < short == long
