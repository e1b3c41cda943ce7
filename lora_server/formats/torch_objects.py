"""What torch's pickles may name, call and refer to: 34 names, each with its exact shape.

The rules follow torch.save of torch 1.6 to 2.13 and are narrower than torch's own restricted
unpickler. A storage is a record of its size, a tensor a record of a view into one.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lora_server.errors import FileRefused
from lora_server.formats.excerpt import excerpt
from lora_server.formats.pickle_values import Global, Opaque, Ordered, is_dict
from lora_server.formats.refusals import (
    CORRUPT,
    RESAVE,
    TENSOR_BOUNDS,
    TOO_COMPLEX,
    UNSAFE_PICKLE,
)
from lora_server.formats.tensors import DTYPE_BITS
from lora_server.formats.torch_storages import CLASSES, Storage, Storages

MAX_RANK = 16
MAX_NUMEL = 1 << 40

_DTYPES = {
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "bool": "BOOL",
}


@dataclass(frozen=True, slots=True)
class View:
    """A tensor: a strided view that lies inside its storage."""

    storage: Storage
    dtype: str
    offset: int  # in elements
    shape: tuple[int, ...]
    stride: tuple[int, ...]  # in elements


class TorchRules:
    """The rules for one object pickle; `storages` collects what it refers to."""

    def __init__(self, storages: Storages) -> None:
        self.storages = storages

    def named(self, name: Global) -> object:
        """Return the name itself where it is one of the 34."""
        if name not in _ALLOWED:
            raise FileRefused(
                UNSAFE_PICKLE, f"global {excerpt(str(name))} is not allowed; {RESAVE}"
            )
        return name

    def called(self, function: object, arguments: tuple[object, ...]) -> object:
        """Return the inert result of one of the six calls that torch.save writes."""
        call = _CALLS.get(function) if type(function) is Global else None
        if call is None:
            what = excerpt(str(function)) if type(function) is Global else "what is no global"
            raise FileRefused(UNSAFE_PICKLE, f"a call of {what} is not allowed; {RESAVE}")
        return call(arguments)

    def referred(self, persistent_id: object) -> object:
        """Return the storage of a persistent id."""
        return self.storages.referred(persistent_id)


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise FileRefused(CORRUPT, "a size, stride or offset is no integer of at least 0")
    return value


def _counts(value: object) -> tuple[int, ...]:
    if type(value) is not tuple or len(value) > MAX_RANK:
        raise FileRefused(CORRUPT, f"a shape or stride is no tuple of at most {MAX_RANK}")
    return tuple(_count(item) for item in value)


def _check_inert(grad: object, hooks: object, *metadata: object) -> None:
    """Refuse whatever would make a loader do more than lay out the bytes."""
    if type(grad) is not bool or not is_dict(hooks) or hooks:
        raise FileRefused(UNSAFE_PICKLE, "a tensor with hooks, or without its requires_grad")
    if any(item is not None and not (is_dict(item) and not item) for item in metadata):
        raise FileRefused(UNSAFE_PICKLE, "a tensor with metadata such as conjugation")


def _view(storage: object, dtype: str, offset: object, shape: object, stride: object) -> View:
    if type(storage) is not Storage:
        raise FileRefused(UNSAFE_PICKLE, "a tensor is rebuilt from something that is no storage")
    view = View(storage, dtype, _count(offset), _counts(shape), _counts(stride))
    if len(view.shape) != len(view.stride):
        raise FileRefused(CORRUPT, "a tensor's shape and stride differ in length")
    _check_bounds(view)
    return view


def _check_bounds(view: View) -> None:
    """Keep the view inside its storage, and its packed size within the storage's size.

    The second also stops a stride of 0 from blowing a few bytes up to any size.
    """
    numel = 1
    for size in view.shape:
        numel *= size
    if numel > MAX_NUMEL:
        raise FileRefused(TOO_COMPLEX, f"a tensor of more than {MAX_NUMEL} elements")
    reach = sum((size - 1) * step for size, step in zip(view.shape, view.stride, strict=True))
    needed = max(view.offset + reach + 1, numel) if numel else 0
    if needed * DTYPE_BITS[view.dtype] // 8 > view.storage.nbytes:
        reason = f"a tensor reaches outside its storage {excerpt(view.storage.key)}"
        raise FileRefused(TENSOR_BOUNDS, reason)


def _tensor_v2(arguments: tuple[object, ...]) -> View:
    match arguments:
        case (Storage(untyped=False) as storage, offset, shape, stride, grad, hooks, *metadata) if (
            len(metadata) <= 1
        ):
            _check_inert(grad, hooks, *metadata)
            return _view(storage, storage.dtype, offset, shape, stride)
    raise FileRefused(UNSAFE_PICKLE, "_rebuild_tensor_v2 with arguments that torch never gives it")


def _tensor_v3(arguments: tuple[object, ...]) -> View:
    match arguments:
        case (
            Storage(untyped=True) as storage,
            offset,
            shape,
            stride,
            grad,
            hooks,
            Global(module="torch", name=dtype),
            *metadata,
        ) if len(metadata) <= 1 and dtype in _DTYPES:
            _check_inert(grad, hooks, *metadata)
            return _view(storage, _DTYPES[dtype], offset, shape, stride)
    raise FileRefused(UNSAFE_PICKLE, "_rebuild_tensor_v3 with arguments that torch never gives it")


def _parameter(arguments: tuple[object, ...]) -> View:
    match arguments:
        case (View() as view, grad, hooks):
            _check_inert(grad, hooks)
            return view
    raise FileRefused(UNSAFE_PICKLE, "_rebuild_parameter of something that is no tensor")


def _ordered(arguments: tuple[object, ...]) -> Ordered:
    if arguments:
        raise FileRefused(UNSAFE_PICKLE, "OrderedDict is called with arguments")
    return Ordered()


def _size(arguments: tuple[object, ...]) -> Opaque:
    match arguments:
        case (tuple() | list() as sizes,) if all(type(size) is int for size in sizes):
            return Opaque("torch.Size")
    raise FileRefused(UNSAFE_PICKLE, "torch.Size of something that is no sequence of integers")


def _device(arguments: tuple[object, ...]) -> Opaque:
    if not arguments or any(type(item) not in {str, int} for item in arguments):
        raise FileRefused(UNSAFE_PICKLE, "torch.device of something that is no device name")
    return Opaque("torch.device")


_CALLS: dict[object, Callable[[tuple[object, ...]], object]] = {
    Global("collections", "OrderedDict"): _ordered,
    Global("torch._utils", "_rebuild_tensor_v2"): _tensor_v2,
    Global("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
    Global("torch._utils", "_rebuild_parameter"): _parameter,
    Global("torch", "Size"): _size,
    Global("torch", "device"): _device,
}
_ALLOWED = frozenset(
    {
        *_CALLS,
        *CLASSES,
        *(Global("torch", name) for name in _DTYPES),
    }
)
