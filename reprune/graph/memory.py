"""Record which memory the operations of a run allocate, write and read."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from .preserving import written_by
from .propagation import Propagation
from .state import Call, State, storage_of


class Memory:
    """The storages of a run; tensors and their views share one."""

    def __init__(self) -> None:
        self.made: dict[int, StorageWeakRef] = {}
        """Storages that operations allocated. The references keep their ids from being used again."""
        self._content: dict[int, State] = {}
        self._read: set[int | None] = set()

    def note(self, call: Call, known: Propagation) -> None:
        """Record that `call` has run; `known` says what its outputs are."""
        inputs = {storage_of(x) for x in call.tensors()}
        written = {storage_of(x) for x in written_by(call)} if call.operation.written else ()
        outputs = {where: x for x in call.outputs() if (where := storage_of(x)) is not None}
        if not call.operation.is_view or outputs.keys() - inputs:
            self._read |= inputs
        for where, x in outputs.items():
            if where not in inputs:
                self.made[where] = StorageWeakRef(x.untyped_storage())  # type: ignore[no-untyped-call]
            if where not in inputs or where in written:
                self._content[where] = known.state(x)
                self._read.discard(where)

    def content(self, x: Tensor) -> State | None:
        """Return what is known of the result in the memory of `x`, by whatever name."""
        where = storage_of(x)
        return None if where is None else self._content.get(where)

    def unread(self) -> Iterator[tuple[int, State]]:
        """Yield the live results that no operation has read since they were written."""
        for where, state in self._content.items():
            gone = where in self.made and self.made[where].expired()  # type: ignore[no-untyped-call]
            if where not in self._read and not gone:
                yield where, state
