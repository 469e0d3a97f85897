"""Several documents in rows that several processes share: which of them go on from chunk to chunk.

In a chunk of a row only the first document can have begun before it, and only the last can go on behind it. So of
earlier chunks a process needs what their last documents have summed up, and that of some only: those whose last
document, through chunks that hold nothing else, is the one that its own chunk begins with.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from jaxtyping import Bool, Int
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
        head: number of the document that a row's first position belongs to, −1 if none of it is real here, (B,).
        in_head: True at its real positions, (B, N).
        in_tail: True at the real positions of the document that a row's last position belongs to, (B, N).
        linked: whether a process's last document is this chunk's first, for earlier processes, (P, B).
        history: positions of that document in front of this chunk, from its first real one on, (B,).
        reach: the greatest history on any process.
    """

    own_longest: int
    head: Int[Tensor, " B"]
    in_head: Bool[Tensor, "B N"]
    in_tail: Bool[Tensor, "B N"]
    linked: Bool[Tensor, "P B"]
    history: Int[Tensor, " B"]
    reach: int

    @classmethod
    def share(
        cls, documents: Int[Tensor, "B N"] | Packing, mask: Bool[Tensor, "B N"] | None, group: dist.ProcessGroup
    ) -> SplitPacking:
        """The packing of this process's chunk of rows, agreed on by all that share them; sends 7 numbers a row.

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
        whole = in_head.all(1)
        in_head, in_tail = in_head & real, in_tail & real
        own = [ids[:, 0], ids[:, -1], whole, *_ends(in_head, layout.start), _ends(in_tail, layout.start)[0]]
        own.append(torch.full_like(whole, packing.longest, dtype=torch.int64))
        everyone = collectives.gathered(torch.stack([part.long() for part in own]), group).cpu()  # (P, 7, B)
        first_id, last_id, alone, begin, end, tail, longest = everyone.unbind(1)  # (P, B) each

        # From process to process: where the document that a chunk begins with has begun before, and in which chunks
        before = torch.full_like(begin[0], NONE)
        linked = torch.zeros_like(begin, dtype=torch.bool)
        most, reach = int(longest.max()), 0
        starts, links = [], []
        for rank, start in enumerate(layout.bounds[:-1]):
            if rank:
                goes_on = last_id[rank - 1] == first_id[rank]
                through = goes_on & alone[rank - 1].bool()  # the one before it holds nothing else
                before = torch.where(through, torch.minimum(before, tail[rank - 1]), tail[rank - 1])
                before = torch.where(goes_on, before, NONE)
                linked = linked & through
                linked[rank - 1] = goes_on
            starts.append(torch.where(before < NONE, start - before, 0))  # (B,)
            links.append(linked)
            lengths = end[rank] - torch.minimum(before, begin[rank]) + 1
            most = max(most, int(torch.where(end[rank] >= 0, lengths, 0).max()))
            reach = max(reach, int(starts[-1].max()))

        device = ids.device
        return cls(
            **vars(packing) | {"longest": most},
            own_longest=packing.longest,
            head=torch.where(in_head, number, -1).amax(1),
            in_head=in_head,
            in_tail=in_tail,
            linked=links[layout.rank].to(device),
            history=starts[layout.rank].to(device),
            reach=reach,
        )

    def seen(self, count: int) -> Bool[Tensor, "B L"]:
        """Which of the `count` positions in front of this chunk belong to the document that it begins with."""
        distances = torch.arange(count, 0, -1, device=self.history.device)
        return distances <= self.history[:, None]


def _ends(inside: Bool[Tensor, "B N"], start: int) -> tuple[Int[Tensor, " B"], Int[Tensor, " B"]]:
    """The first and the last position inside, in whole rows; NONE and −1 where none is."""
    place = torch.arange(start, start + inside.shape[1], device=inside.device)
    return torch.where(inside, place, NONE).amin(1), torch.where(inside, place, -1).amax(1)
