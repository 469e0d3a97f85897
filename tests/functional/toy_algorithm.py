"""An algorithm as a file of its own: the definition, one einsum a line, for rows that are not too long."""

import torch

from lambda_seq.functional import reference
from lambda_seq.functional.position.registry import Algorithm, register
from lambda_seq.functional.work import Work

WIDEST = 60


def gathered(embedding, sizes):
    """E_nm (U, K, N, M): the definition's embeddings are centred, as wide as the input on both sides of offset 0."""
    top, left = sizes.Y - 1 - sizes.origin[0], sizes.X - 1 - sizes.origin[1]
    padding = (left, 2 * sizes.X - 1 - sizes.RX - left, top, 2 * sizes.Y - 1 - sizes.RY - top)
    return reference.gather(torch.nn.functional.pad(embedding, padding), (sizes.Y, sizes.X), False)


def flat(*tensors):
    return (tensor.flatten(2, 3) for tensor in tensors)


def laid_out(tensor, sizes):
    image = tensor.unflatten(2, (sizes.Y, sizes.X))
    return image.permute(0, 2, 3, 1, 4).contiguous().permute(0, 3, 1, 2, 4)


def forward(query, value, embedding, sizes):
    query, value = flat(query, value)
    output = torch.einsum("uknm,bumv,bhnk->bhnv", gathered(embedding, sizes), value, query)
    return laid_out(output, sizes)


def backward(grad, query, value, embedding, sizes):
    grad, query, value = flat(grad, query, value)
    embeddings = gathered(embedding, sizes)
    grad_query = torch.einsum("uknm,bumv,bhnv->bhnk", embeddings, value, grad)
    grad_value = torch.einsum("uknm,bhnv,bhnk->bumv", embeddings, grad, query)
    pairs = torch.einsum("bumv,bhnv,bhnk->uknm", value, grad, query).flatten(2)
    cells = torch.arange(1, sizes.RY * sizes.RX + 1, dtype=torch.float64).view(1, 1, sizes.RY, sizes.RX)
    place = gathered(cells, sizes).flatten().long()  # 0 outside the scope
    grad_embedding = pairs.new_zeros(*pairs.shape[:2], cells.numel() + 1).index_add_(2, place, pairs)[..., 1:]
    grad_embedding = grad_embedding.reshape(embedding.shape).contiguous()
    return laid_out(grad_query, sizes), laid_out(grad_value, sizes), grad_embedding


def count(sizes, backward):
    return Work(calls=1e-3), 1.0


def supports(sizes, device, dtype):
    return f"it is for at most {WIDEST} columns, not {sizes.X}" if sizes.X > WIDEST else None


register(Algorithm("toy", "the definition again", forward, backward, count, supports))
