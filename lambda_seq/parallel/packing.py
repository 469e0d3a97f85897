"""Several documents in rows that several processes share: which of them go on from chunk to chunk.

In a chunk of a row only the first document can have begun before it, and only the last can go on behind it: its ends.
So of other chunks a process needs what these have summed up of the documents at their ends, where they are its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lambda_seq.functional.packing import Packing
from lambda_seq.parallel import collectives
from lambda_seq.parallel.layout import Layout

NONE = 2**62  # in place of a first position where there is none


@dataclass(frozen=True, eq=False)
class SplitPacking(Packing):
    """The packing of this process's chunk, and how its documents go on in others; made by `SplitPacking.share`.

    Attributes:
        longest: positions of the longest document, all of it, on any process.
        own_longest: positions of the longest document within this chunk.
        total: number of documents in the whole rows.
        numbers: of this chunk's documents among those of the whole rows, (D,).
        head, tail: number here of the document that a row's first position belongs to, and its last one, −1 where
            nothing of it is real here, (B,).
        in_head, in_tail: True at the real positions of these, (B, N).
        linked: whether an earlier process's tail is this one's head, (P, B).
        kin: whether the head or the tail of another process is this one's head or tail, (own end, P, end, B); a
            document that fills a chunk counts as its head only.
        history: positions of the head in front of this chunk, from its first real one on, (B,).
        future: positions of the tail behind this chunk, up to its last real one, (B,).
        reach, ahead: the greatest history and future on any process.
    """

    own_longest: int
    total: int
    numbers: Int[Tensor, " D"]
    head: Int[Tensor, " B"]
    tail: Int[Tensor, " B"]
    in_head: Bool[Tensor, "B N"]
    in_tail: Bool[Tensor, "B N"]
    linked: Bool[Tensor, "P B"]
    kin: Bool[Tensor, "2 P 2 B"]
    history: Int[Tensor, " B"]
    future: Int[Tensor, " B"]
    reach: int
    ahead: int

    @classmethod
    def share(
        cls, documents: Int[Tensor, "B N"] | Packing, mask: Bool[Tensor, "B N"] | None, group: dist.ProcessGroup
    ) -> SplitPacking:
        """The packing of this process's chunk of rows, agreed on by all that share them; sends 9 numbers a row.

        Args:
            documents, mask: as for `Packing.of`, of this process's positions.
            group: the processes, in order.

        Raises:
            TypeError, ValueError: as `Packing.of`, or documents of whole rows.
        """
        if isinstance(documents, SplitPacking):
            documents.check_mask(mask)
            return documents
        if isinstance(documents, Packing):
            raise ValueError(
                "documents is a packing of whole rows, but other processes hold parts of them: give the ids of this "
                "process's positions, parallel.shard_sequence(ids, mesh)"
            )
        packing = Packing.of(documents, mask)
        layout = Layout.of(documents, group)
        ids, number = documents.detach(), packing.number
        real = number >= 0
        in_head = (ids == ids[:, :1]).cumprod(1).bool()
        in_tail = (ids == ids[:, -1:]).flip(1).cumprod(1).flip(1).bool()
        alone = in_head.all(1)
        in_head, in_tail = in_head & real, in_tail & real
        count = packing.rows.new_zeros(ids.shape[0]).index_add_(0, packing.rows, torch.ones_like(packing.rows))
        own = [ids[:, 0], ids[:, -1], alone, *_ends(in_head, layout.start), *_ends(in_tail, layout.start), count]
        own.append(torch.full_like(count, packing.longest))
        everyone = collectives.gathered(torch.stack([part.long() for part in own]), group).cpu()  # (P, 9, B)
        ends, before, in_row = _number(everyone)
        spread = ends.spread(layout)

        device, rank = ids.device, layout.rank
        own_count = everyone[rank, 7]
        # From a document's number in this chunk to that in the whole rows: what is in front of its row, and in it
        offsets = _in_front(in_row) + before[rank] - _in_front(own_count)  # (B,)
        first, last = ends.number.unbind(1)  # (P, B) each
        earlier = torch.arange(len(last))[:, None] < rank
        return cls(
            **vars(packing) | {"longest": max(int(everyone[:, 8].max()), spread.longest)},
            own_longest=packing.longest,
            total=int(in_row.sum()),
            numbers=torch.arange(len(packing), device=device) + offsets.to(device)[packing.rows],
            head=torch.where(in_head, number, -1).amax(1),
            tail=torch.where(in_tail, number, -1).amax(1),
            in_head=in_head,
            in_tail=in_tail,
            linked=_same(first[rank], torch.where(earlier, last, -1)).to(device),
            kin=ends.kin(rank).to(device),
            history=spread.history[rank].to(device),
            future=spread.future[rank].to(device),
            reach=int(spread.history.max()),
            ahead=int(spread.future.max()),
        )

    @property
    def in_rows(self) -> Int[Tensor, "B N"]:
        """`number`, as the documents of whole rows are numbered, of which this process has a chunk."""
        return F.pad(self.numbers, (0, 1), value=-1)[self.number]

    def seen(self, count: int, *, front: bool = True) -> Bool[Tensor, "B L"]:
        """Which of `count` positions in front of this chunk belong to its head, or of those behind it to its tail."""
        distances = torch.arange(1, count + 1, device=self.history.device)
        return distances.flip(0) <= self.history[:, None] if front else distances <= self.future[:, None]

    def collect(self, parts: Sequence[Float[Tensor, "D' *C"]], fill: float = 0) -> Float[Tensor, "T *C"]:
        """For each of the `total` documents of the whole rows; `fill` for those of which nothing is here."""
        numbers = self.numbers[self.order]
        values = torch.cat(list(parts))
        return values.new_full((self.total, *values.shape[1:]), fill).index_copy(0, numbers, values)

    def deal(self, values: Float[Tensor, "T *C"]) -> list[Float[Tensor, "D' *C"]]:
        """The way back, of the documents that are here."""
        return super().deal(values.index_select(0, self.numbers))


@dataclass(frozen=True)
class _Ends:
    """The documents at the ends of all chunks, each the head and the tail: (P, 2, B).

    Attributes:
        number: of the document in its row, −1 where nothing of it is real in the chunk.
        begin, end: its first and last real position in the chunk; NONE and −1 where there is none.
    """

    number: Int[Tensor, "P 2 B"]
    begin: Int[Tensor, "P 2 B"]
    end: Int[Tensor, "P 2 B"]

    def kin(self, rank: int) -> Bool[Tensor, "2 P 2 B"]:
        """Which of them are the same as those of one process, and on another."""
        others = self.number.clone()
        others[:, 1][others[:, 1] == others[:, 0]] = -1
        others[rank] = -1
        return _same(self.number[rank][:, None, None], others)

    def spread(self, layout: Layout) -> _Spread:
        """How far the documents reach beyond their chunks."""
        shape = self.number.shape
        number, begin, end = (part.flatten(0, 1) for part in (self.number, self.begin, self.end))  # (2·P, B)
        same = _same(number[:, None], number)  # (2·P, 2·P, B)
        begin = torch.where(same, begin, NONE).amin(1)  # of all that is one document
        end = torch.where(same, end, -1).amax(1)
        there = number >= 0
        start, stop = (torch.tensor(part)[:, None] for part in (layout.bounds[:-1], layout.bounds[1:]))  # (P, 1)
        before = start - torch.where(there, begin, NONE).view(shape)[:, 0]
        after = torch.where(there, end, -1).view(shape)[:, 1] + 1 - stop
        return _Spread(before.clamp_min(0), after.clamp_min(0), int(torch.where(there, end - begin + 1, 0).max()))


@dataclass(frozen=True)
class _Spread:
    """Positions of each chunk's head in front of it, of its tail behind it, (P, B), and of the longest document."""

    history: Int[Tensor, "P B"]
    future: Int[Tensor, "P B"]
    longest: int


def _number(everyone: Int[Tensor, "P 9 B"]) -> tuple[_Ends, Int[Tensor, "P B"], Int[Tensor, " B"]]:
    """The numbers, in their rows, of the documents at the ends of chunks, from what each chunk says of itself.

    Returns:
        the ends, the documents of a row that come before those of a chunk, and all that a row has.
    """
    first_id, last_id, alone, head_begin, head_end, tail_begin, tail_end, counts, _ = everyone.unbind(1)  # (P, B) each
    number = torch.zeros_like(counts[0])  # of documents in the row so far
    open_ = torch.zeros_like(number, dtype=torch.bool)  # whether something of the latest run is real
    before, heads, tails = [], [], []
    for rank in range(len(counts)):
        goes_on = open_ & (last_id[rank - 1] == first_id[rank])
        has_head, has_tail = head_begin[rank] < NONE, tail_begin[rank] < NONE
        before.append(number - (goes_on & has_head).long())
        number = before[-1] + counts[rank]
        heads.append(torch.where(has_head, before[-1], -1))
        tails.append(torch.where(has_tail, number - 1, -1))
        open_ = has_tail | (goes_on & alone[rank].bool())
    begin, end = torch.stack([head_begin, tail_begin], 1), torch.stack([head_end, tail_end], 1)
    ends = _Ends(torch.stack([torch.stack(heads), torch.stack(tails)], 1), begin, end)
    return ends, torch.stack(before), number


def _in_front(counts: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
    """How many there are in earlier rows."""
    return counts.cumsum(0) - counts


def _same(number: Tensor, others: Tensor) -> Tensor:
    """Whether they are one document."""
    return (number == others) & (others >= 0)


def _ends(inside: Bool[Tensor, "B N"], start: int) -> tuple[Int[Tensor, " B"], Int[Tensor, " B"]]:
    """The first and the last position inside, in whole rows; NONE and −1 where none is."""
    place = torch.arange(start, start + inside.shape[1], device=inside.device)
    return torch.where(inside, place, NONE).amin(1), torch.where(inside, place, -1).amax(1)
