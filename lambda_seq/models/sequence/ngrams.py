"""A stem that knows n-grams of any vocabulary by their hashes: words, and pairs of words, as vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lambda_seq import functional as LF
from lambda_seq.layers import UNSHARDED, SequenceContext, checks
from lambda_seq.layers.weights import draw_linear, gathers, place, reset_by
from lambda_seq.models.sequence.convolutions import Stem, Stemmed, StemState, check_ids
from lambda_seq.models.sequence.streaming import NgramState, check_batch

BITS = 2**31 - 1  # of the numbers that are hashed: 31, so that no product of two of them leaves 64
# 2³¹ times the fractions of the golden ratio, √2 and √3, made odd: multiplying by them modulo 2³¹ can be undone
FACTORS = (0x4F1BBCDD, 0x3504F333, 0x5DB3D743)
SCALE = 0.01  # standard deviation of an n-gram's vector as it is drawn
COUNTED = 2**18  # tokens that are counted together
# What an n-gram counts that a text has so many times
TF: dict[str, Callable[[Tensor], Tensor]] = {
    "natural": lambda times: times,
    "log": lambda times: 1 + times.log(),
    "binary": torch.ones_like,
}


class NgramStem(Stem):
    """Vectors of the n-grams that end at each position, added up, then strided convolutions, (B, N) -> (B, M, dim).

    y_i = √channels · Σ_n w[h] · E[h],  h = hash(n, x_{i−n+1}, …, x_i) mod buckets,  over all n of `orders`

    Ids may be of any vocabulary, as nothing is kept for each of them; n-grams that share a bucket share a vector (the
    hashing trick: K. Weinberger et al., 2009). An n-gram with a masked position, or with positions of two documents,
    is none. As it ends at its position, the stem is causal.

    Vectors, E times √channels, are drawn from N(0, 0.01²). Most n-grams are rare, and learn little: what they were
    drawn as stays in them, and from N(0, 1) that would drown what the others have learned. The factor (A. Vaswani et
    al., 2017, section 3.4) lets them move far in few steps, at a learning rate that suits the rest of a network.

    The weights w are 1 until `adapt` counts in how many documents a bucket occurs. They are no parameters, but part of
    the state dict.

    With `df_power=0.5` rare n-grams weigh less. Optimizers that divide a gradient by the root of its mean square, such
    as Adam, move the vector of an n-gram that n batches have by about √n steps, where gradient descent moves it by n:
    of rare ones they learn too much, and so documents by heart. The factor √d makes that n again.

    What recurs in a text can drown what is there once. With `tf="log"` the c-th time that a text has an n-gram counts
    ln(c / (c − 1)), the first 1, so that a sum over positions has 1 + ln c of it; with "binary" the first time alone
    counts (C. D. Manning, P. Raghavan, H. Schütze, 2008, section 6.4). N-grams of one bucket are the same here. A
    stream counts for each bucket then; devices that share sequences tell each other their n-grams.

    Args:
        dim: channels of the frames; behind the embedding, if convolutions follow, half of them.
        vocab_size: number of token ids, which a head may have to know; None if that is not known.
        orders: lengths n of the n-grams.
        buckets: rows of the embedding E.
        idf: whether n-grams weigh by their inverse document frequency.
        df_power: by which power of their document frequency n-grams weigh, from 0 to 1; with idf, by both.
        tf: how an n-gram counts that a text has c times: "natural", c; "log", 1 + ln c; "binary", 1.
        dropout: probability of hiding a token in training, so that every n-gram with it is left out; the others grow by
            1 / (1 − dropout)ⁿ. Unless tf is "natural", an id is hidden wherever it stands in a text.
        strides, norm, causal: as for `Stem`; without strides there are no convolutions.
    """

    sequence: SequenceContext = UNSHARDED
    weight: Tensor | None

    def __init__(
        self,
        dim: int,
        vocab_size: int | None = None,
        *,
        orders: Sequence[int] = (1, 2),
        buckets: int = 2**18,
        idf: bool = False,
        df_power: float = 0.0,
        tf: str = "natural",
        dropout: float = 0.0,
        strides: Sequence[int] = (),
        norm: str = "layer",
        causal: bool = False,
    ) -> None:
        checks.at_least_one(buckets=buckets, **({} if vocab_size is None else {"vocab_size": vocab_size}))
        checks.flags(idf=idf)
        checks.one_of("tf", tf, tuple(TF))
        checks.numbers(df_power=df_power)
        if not 0 <= df_power <= 1:
            raise ValueError(f"df_power={df_power}: expected a number from 0, for none, to 1; try 0.5")
        if not orders or min(orders) < 1 or len(set(orders)) < len(orders):
            raise ValueError(f"orders={list(orders)}: expected different lengths of n-grams, each at least 1: [1, 2]")
        if buckets > BITS:
            raise ValueError(f"buckets={buckets}: expected at most {BITS}, as many as there are hashes; try 2**18")
        channels = max(dim // 2, 1) if strides else dim
        super().__init__(channels, dim, strides, norm, causal)
        self.vocab_size, self.orders, self.buckets, self.dropout = vocab_size, tuple(orders), buckets, dropout
        self.reach = max(orders) - 1  # positions in front of one that its n-grams have
        self.embedding = nn.EmbeddingBag(buckets, channels, mode="sum")
        self.gain = channels**0.5
        reset_by(self.embedding, partial(draw_linear, stds=(SCALE / self.gain,)))
        self.idf, self.df_power, self.tf = idf, df_power, tf
        self.register_buffer("weight", torch.ones(buckets) if idf or df_power else None)

    def reset_parameters(self) -> None:
        """Let all n-grams weigh alike."""
        if self.weight is not None:
            nn.init.ones_(self.weight)

    @property
    def adapts(self) -> bool:
        """Whether there are weights to be counted, by `adapt`."""
        return self.weight is not None

    @torch.no_grad()
    def adapt(self, documents: Iterable[Int[np.ndarray, " N"]]) -> None:
        """Set the weights of a bucket that d of D documents have: log((1 + D) / (1 + d)), for idf, times d^df_power.

        They are scaled so that their mean square over all n-grams of the documents, as `tf` counts them, is 1. A bucket
        that no document has weighs nothing, as nothing is learned of it. Where all are in all documents they weigh
        alike.

        Args:
            documents: token ids of each document that is trained on; gone through once.

        Raises:
            ValueError: the stem has no weights.
        """
        if self.weight is None:
            raise ValueError(
                "idf=False, df_power=0: the stem has no weights to adapt; construct it with idf=True or df_power=0.5"
            )
        frequency, count = torch.zeros(2, self.buckets, dtype=torch.float64)  # documents, and n-grams, of each bucket
        total = 0
        for batch in _together(documents):
            total += len(batch)
            lengths = torch.tensor([len(ids) for ids in batch])
            ids = torch.from_numpy(np.concatenate(batch)).long()[None]  # (1, N)
            number = torch.arange(len(batch)).repeat_interleave(lengths)[None]
            rows = F.pad(torch.stack([ids, torch.ones_like(ids)], -1), (0, 0, self.reach, 0))
            hashes, there = self._ngrams(rows, F.pad(number, (self.reach, 0)))
            keys, times = (number[..., None] * self.buckets + hashes)[there].unique(return_counts=True)
            frequency += torch.bincount(keys % self.buckets, minlength=self.buckets)
            count += torch.bincount(keys % self.buckets, TF[self.tf](times.double()), minlength=self.buckets)
        weight = torch.log((1 + total) / (1 + frequency)) if self.idf else torch.ones_like(frequency)
        weight = (weight * frequency**self.df_power).masked_fill(frequency == 0, 0)
        square = (count * weight.square()).sum() / count.sum().clamp_min(1)
        self.weight.copy_(weight * square.rsqrt() if square > 0 else torch.ones_like(weight))

    def forward(
        self, x: Int[Tensor, "B N"], mask: Bool[Tensor, "B N"] | None = None, packing: LF.Packing | None = None
    ) -> Stemmed:
        """Frames of x, and their mask; any id may stand at masked positions.

        Args:
            x: token ids, of any size.
            mask: True at real positions.
            packing: of several documents in a row, whose mask this is.

        Raises:
            TypeError: x is no int32 or int64 tensor.
            ValueError: x is not (B, N).
        """
        return self.convolve(*self.embed(x, mask, packing))

    def embed(
        self, x: Int[Tensor, "B N"], mask: Bool[Tensor, "B N"] | None, packing: LF.Packing | None = None
    ) -> Stemmed:
        """A vector for each position; arguments and errors as `forward`."""
        check_ids(x, mask)
        rows = self.sequence.extend(self._marked(x, mask), self.reach, 0, 1)  # (B, reach + N, 2)
        number = None
        if packing is not None:
            packing.check_shape(x.shape, x.device)
            front = torch.where(packing.seen(self.reach), packing.number[:, :1], -1)
            number = torch.cat([front, packing.number], 1)
        hashes, there = self._ngrams(rows, number)
        return self._vectors(hashes, there, self._times(hashes, there, packing)), mask

    def init_state(self, batch_size: int) -> StemState:
        """The state before the first position, for `step`.

        Raises:
            ValueError: the stem has convolutions that are not causal.
        """
        device = place(self).device
        kept = torch.zeros(batch_size, self.reach, 2, dtype=torch.int64, device=device)
        counts = torch.zeros(batch_size, self.counted, dtype=torch.int64, device=device)
        return NgramState(kept, counts), *super().init_state(batch_size)

    @gathers
    def step(self, x: Int[Tensor, "B T"], state: StemState) -> tuple[Float[Tensor, "B M dim"], StemState]:
        """The frames that the next T ≥ 1 positions complete, 0 or more of them, and the state after them."""
        check_ids(x, None)
        ngrams = state[0] if state else None
        if not isinstance(ngrams, NgramState) or ngrams.kept.shape[1] != self.reach:
            raise ValueError(
                f"state does not keep {self.reach} ids, as orders={list(self.orders)} need: take the state of this "
                "model's init_state"
            )
        if ngrams.counts.shape[1] != self.counted:
            raise ValueError(
                f"state counts {max(ngrams.counts.shape[1] - 1, 0)} buckets, where tf={self.tf!r}, buckets="
                f"{self.buckets} need {max(self.counted - 1, 0)}: take the state of this model's init_state"
            )
        check_batch(x.shape[0], ngrams.kept.shape[0])
        rows = torch.cat([ngrams.kept, self._marked(x, None)], 1)  # (B, reach + T, 2)
        hashes, there = self._ngrams(rows, None)
        times, counts = None, ngrams.counts
        if self.counted:
            keys = self._keys(hashes, there)
            times = (times_so_far(keys) + counts.gather(1, keys)).view_as(there)
            counts = counts.scatter_add(1, keys, torch.ones_like(keys))
        frames, others = self.step_convolutions(self._vectors(hashes, there, times), state[1:])
        return frames, (NgramState(rows[:, x.shape[1] :].clone(), counts), *others)

    def _marked(self, x: Tensor, mask: Tensor | None) -> Int[Tensor, "B N 2"]:
        """Each id, and 1 if n-grams may have it: if it is real, and not hidden by dropout."""
        real = torch.ones_like(x, dtype=torch.bool) if mask is None else mask
        if self.training and self.dropout and self.counted:  # an id is hidden wherever it stands in a text
            seeds = torch.randint(BITS, (len(x), 1), device=x.device).expand_as(x)
            real = real & (hashed([seeds, x.long()]) >= self.dropout * 2**31)
        elif self.training and self.dropout:
            real = real & (torch.rand(x.shape, device=x.device) >= self.dropout)
        return torch.stack([x.long(), real.long()], -1)

    def _vectors(
        self, hashes: Int[Tensor, "B N O"], there: Bool[Tensor, "B N O"], times: Int[Tensor, "B N O"] | None
    ) -> Float[Tensor, "B N C"]:
        """The weighed sum at each position of the n-grams that are there, for the how-manieth time."""
        weights = there.to(self.embedding.weight.dtype) * self.gain
        if times is not None:
            now = times.to(torch.promote_types(weights.dtype, torch.float32))  # halves do not tell 300 from 301
            term = TF[self.tf]
            weights = weights * torch.where(times > 1, term(now) - term((now - 1).clamp_min(1)), 1).to(weights.dtype)
        if self.training and self.dropout:
            weights = weights * weights.new_tensor([(1 - self.dropout) ** -order for order in self.orders])
        if self.weight is not None:
            weights = weights * self.weight[hashes]
        vectors = self.embedding(hashes.flatten(0, 1), per_sample_weights=weights.flatten(0, 1))
        return vectors.unflatten(0, hashes.shape[:2])

    def _ngrams(
        self, rows: Int[Tensor, "B L 2"], number: Int[Tensor, "B L"] | None
    ) -> tuple[Int[Tensor, "B N O"], Bool[Tensor, "B N O"]]:
        """Buckets of the n-grams of each order that end at each position but the first `reach`, and which there are.

        Args:
            rows: ids, and whether n-grams may have them.
            number: of the document that each belongs to; None for one.
        """
        ids, real = rows[..., 0], rows[..., 1].bool()
        hashes, there = [], []
        length = ids.shape[1] - self.reach
        for order in self.orders:
            parts = [slice(begin, begin + length) for begin in range(self.reach + 1 - order, self.reach + 1)]
            hashes.append(hashed([ids[:, part] for part in parts]) % self.buckets)
            whole = torch.stack([real[:, part] for part in parts]).all(0)
            if number is not None:
                whole &= torch.stack([number[:, part] == number[:, self.reach :] for part in parts]).all(0)
            there.append(whole)
        return torch.stack(hashes, -1), torch.stack(there, -1)

    def _keys(self, hashes: Int[Tensor, "B N O"], there: Bool[Tensor, "B N O"]) -> Int[Tensor, "B M"]:
        """The buckets in the order of positions; `buckets` where no n-gram is."""
        return hashes.masked_fill(~there, self.buckets).flatten(1)

    @property
    def counted(self) -> int:
        """Counts that a stream keeps: of each bucket, and of none; 0 where it does not matter how often one was."""
        return 0 if self.tf == "natural" else self.buckets + 1

    def _times(
        self, hashes: Int[Tensor, "B N O"], there: Bool[Tensor, "B N O"], packing: LF.Packing | None
    ) -> Int[Tensor, "B N O"] | None:
        """How often the bucket of each n-gram was in the sequence, or in the document it belongs to, with this one.

        None where that does not matter.
        """
        if not self.counted:
            return None
        keys = self._keys(hashes, there)
        documents = None if packing is None else packing.in_rows.repeat_interleave(len(self.orders), 1)
        if self.sequence.size == 1:
            return times_so_far(keys, documents).view_as(there)
        own = torch.stack([keys, torch.zeros_like(keys) if documents is None else documents])  # (2, B, M)
        most = int(self.sequence.gather(torch.tensor(keys.shape[1], device=keys.device)).max())
        everyone = self.sequence.gather(F.pad(own, (0, most - keys.shape[1]), value=self.buckets))  # (P, 2, B, most)
        whole = torch.cat([*everyone[: self.sequence.rank], own], -1)
        return times_so_far(*whole)[:, -keys.shape[1] :].view_as(there)

    def extra_repr(self) -> str:
        """Orders, and what weighs them, for printing."""
        return f"orders={list(self.orders)}, idf={self.idf}, df_power={self.df_power}, tf={self.tf!r}"


def times_so_far(keys: Int[Tensor, "B M"], documents: Int[Tensor, "B M"] | None = None) -> Int[Tensor, "B M"]:
    """How often each key was in its row, or in its document, up to here; documents' numbers do not descend in a row."""
    length = keys.shape[1]
    places = torch.arange(length, device=keys.device).expand_as(keys)
    order = (keys * length + places).argsort(1)  # all differ: by keys, and of equal ones by their places
    found = keys.gather(1, order)
    other = found[:, 1:] != found[:, :-1]
    if documents is not None:
        document = documents.gather(1, order)
        other = other | (document[:, 1:] != document[:, :-1])
    run = F.pad(other.long().cumsum(1), (1, 0))  # the number of the run of equal keys
    sizes = torch.zeros_like(keys).scatter_add(1, run, torch.ones_like(keys))
    begins = sizes.cumsum(1) - sizes
    return torch.zeros_like(keys).scatter(1, order, places - begins.gather(1, run) + 1)


def hashed(ids: Sequence[Int[Tensor, "*A"]]) -> Int[Tensor, "*A"]:
    """A number from 0 to 2³¹ − 1 for each sequence of n ids, given as n tensors: the same on every device.

    h ← mix(h · c + id) from h = n on, where mix are steps x ← (x ⊕ x ≫ s) · c as those that MurmurHash3 (A. Appleby,
    2011) ends with, on 31 bits, so that no product leaves the 63 of an int64. Of ids the lower 31 bits count.
    """
    mixed = torch.full_like(ids[0], len(ids))
    for one in ids:
        mixed = (mixed * FACTORS[0] + (one & BITS)) & BITS
        mixed = ((mixed ^ (mixed >> 16)) * FACTORS[1]) & BITS
        mixed = ((mixed ^ (mixed >> 15)) * FACTORS[2]) & BITS
        mixed = mixed ^ (mixed >> 16)
    return mixed


def _together(documents: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Documents in lists of about `COUNTED` tokens."""
    batch: list[np.ndarray] = []
    tokens = 0
    for ids in documents:
        batch.append(ids)
        tokens += len(ids)
        if tokens >= COUNTED:
            yield batch
            batch, tokens = [], 0
    if batch:
        yield batch
