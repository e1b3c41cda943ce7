"""Checkpoints of torch.save, zip or legacy, read into a tensor table and never unpickled."""

from dataclasses import dataclass

from lora_server.errors import FileRefused
from lora_server.formats import torch_legacy, torch_zip
from lora_server.formats.refusals import CORRUPT, RESAVE, UNSUPPORTED
from lora_server.formats.source import Read
from lora_server.formats.tensors import DTYPE_BITS, Container, Tensor, TensorTable
from lora_server.formats.torch_names import contents
from lora_server.formats.torch_objects import View

_PICKLE = b"\x80"  # the opcode that begins a pickle of any protocol but the oldest


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified checkpoint."""

    table: TensorTable
    left_out: tuple[str, ...]  # names of tensors beside the state dict: optimizer states


def read_table(read: Read, size: int) -> TensorTable:
    """Return the tensor table of a torch file of `size` bytes, or raise FileRefused."""
    return read_checkpoint(read, size).table


def read_checkpoint(read: Read, size: int) -> Checkpoint:
    """Return the table and what it leaves out, or raise FileRefused.

    Every byte is accounted for, every checksum compared, every view inside its storage.
    """
    head = read(0, len(torch_legacy.MAGIC))
    if head.startswith(torch_zip.MAGIC):
        container, loaded = Container.TORCH_ZIP, torch_zip.load(read, size)
    elif head == torch_legacy.MAGIC:
        container, loaded = Container.TORCH_LEGACY, torch_legacy.load(read, size)
    else:
        raise _unknown(head)
    found = contents(loaded.root, size)
    tensors = (
        _tensor(name, view, loaded.begins[view.storage.key]) for name, view in found.views.items()
    )
    table = TensorTable(
        container=container,
        tensors=tuple(tensors),
        metadata=found.metadata,
        data_begin=0,
        expected_size=size,
    )
    return Checkpoint(table, tuple(found.left_out))


def _unknown(head: bytes) -> FileRefused:
    if not head:
        return FileRefused(CORRUPT, "the file is empty")
    if head.startswith(_PICKLE):
        return FileRefused(UNSUPPORTED, f"a bare pickle, or not protocol 2; {RESAVE}")
    return FileRefused(UNSUPPORTED, "neither a zip nor a legacy file of torch.save begins here")


def _tensor(name: str, view: View, storage_begin: int) -> Tensor:
    """Place a view in the file; where it is empty its offset means nothing."""
    offset = view.offset if 0 not in view.shape else 0
    begin = storage_begin + offset * DTYPE_BITS[view.dtype] // 8
    return Tensor(name, view.dtype, view.shape, view.stride, begin)
