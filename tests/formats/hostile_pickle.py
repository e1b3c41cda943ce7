"""Pickles that must be refused whatever holds them: gadgets, opcodes, lies about tensors."""

from tests.formats.hostile_opcodes import GADGETS, OPCODES
from tests.formats.pickle_bytes import (
    ORDERED,
    Built,
    Call,
    Filled,
    Held,
    Name,
    Raw,
    Reference,
    ordered,
)
from tests.formats.torch_bytes import (
    REBUILD_PARAMETER,
    REBUILD_V2,
    REBUILD_V3,
    UNTYPED,
    held,
    lora,
    tensor,
)

MARKER = "executed"  # the file that a live payload would leave in the working directory

UNSAFE, CORRUPT, BOUNDS = "lora_unsafe_pickle", "lora_corrupt", "lora_tensor_bounds"
COMPLEX = "lora_pickle_too_complex"

STORE = held(bytes(16), key="7")
TENSOR = tensor(STORE, (4,))
SHAPE = (STORE, 0, (4,), (1,), False, ordered())
V3 = (Held(bytes(4), UNTYPED, 4, "7"), 0, (4,), (1,), False, ordered(), Name("torch", "uint8"))
FLOATS = Name("torch", "FloatStorage")


def _changed(arguments: tuple[object, ...], index: int, value: object) -> tuple[object, ...]:
    return (*arguments[:index], value, *arguments[index + 1 :])


def _v2(index: int, value: object) -> Call:
    return Call(REBUILD_V2, _changed(SHAPE, index, value))


def _v3(index: int, value: object) -> Call:
    return Call(REBUILD_V3, _changed(V3, index, value))


# Values that stand in a dictionary beside an honest LoRA.
VALUES: dict[str, tuple[object, str]] = {
    "global with a dotted attribute": (Name("torch", "serialization.os.system"), UNSAFE),
    "global with a space": (Raw(b"ctorch\nFloat Storage\n"), UNSAFE),
    "global in lookalike letters": (Name("t\u043erch", "FloatStorage"), UNSAFE),
    "global with empty name": (Raw(b"ctorch\n\n"), UNSAFE),
    "global with a NUL": (Raw(b"ctorch\nSize\0\n"), UNSAFE),
    "global without end": (Raw(b"c" + b"a" * 300), COMPLEX),
    "global from a submodule": (Name("torch._utils.os", "system"), UNSAFE),
    "call of a dtype": (Call(Name("torch", "float16"), ()), UNSAFE),
    "call of a storage class": (Call(FLOATS, (4,)), UNSAFE),
    "call of a string": (Call("os.system", ("true",)), UNSAFE),
    "call of a tensor": (Call(TENSOR, ()), UNSAFE),
    "call with a list": (Call(ORDERED, []), UNSAFE),
    "OrderedDict of pairs": (Call(ORDERED, ([],)), UNSAFE),
    "Size of strings": (Call(Name("torch", "Size"), (["1"],)), UNSAFE),
    "Size of booleans": (Call(Name("torch", "Size"), ((True,),)), UNSAFE),
    "Size of nothing": (Call(Name("torch", "Size"), ()), UNSAFE),
    "device of a tensor": (Call(Name("torch", "device"), (TENSOR,)), UNSAFE),
    "device of nothing": (Call(Name("torch", "device"), ()), UNSAFE),
    "parameter of a string": (Call(REBUILD_PARAMETER, ("x", True, ordered())), UNSAFE),
    "parameter with hooks": (Call(REBUILD_PARAMETER, (TENSOR, True, {"a": 1})), UNSAFE),
    "parameter with state": (Call(REBUILD_PARAMETER, (TENSOR, True, {}, {})), UNSAFE),
    "BUILD on a dictionary": (Built({}, {"_metadata": 1}), UNSAFE),
    "BUILD on a tensor": (Built(TENSOR, {"_metadata": 1}), UNSAFE),
    "BUILD on a global": (Built(Name("torch", "float16"), {"_metadata": 1}), UNSAFE),
    "BUILD with slots": (Built(ordered(), ({}, {"_metadata": 1})), UNSAFE),
    "BUILD with another key": (Built(ordered(), {"__class__": 1}), UNSAFE),
    "BUILD with a second key": (Built(ordered(), {"_metadata": 1, "update": 1}), UNSAFE),
    "BUILD with nothing": (Built(ordered(), None), UNSAFE),
    "memo entry from nowhere": (Raw(b"j\xff\xff\xff\x7f"), UNSAFE),
    "memo entry out of order": (Raw(b"Nr\xff\xff\xff\x7f"), UNSAFE),
    "memo entry overwritten": (Raw(b"Nq\0"), UNSAFE),
    "protocol again": (Raw(b"N\x80\2"), CORRUPT),
    "append to a dictionary": (Raw(b"}Na"), CORRUPT),
    "append to a tuple": (Raw(b")Na"), CORRUPT),
    "appends to None": (Raw(b"N(Ne"), CORRUPT),
    "set an item of a list": (Raw(b"]K\0Ns"), CORRUPT),
    "set an item of a global": (Raw(b"ccollections\nOrderedDict\nK\0Ns"), CORRUPT),
    "set items of None": (Raw(b"N(K\0Nu"), CORRUPT),
    "key without value": (Raw(b"}(K\0u"), CORRUPT),
    "boolean key": (Raw(b"}\x88Ns"), CORRUPT),
    "float key": (Raw(b"}G" + bytes(8) + b"Ns"), CORRUPT),
    "tuple key": (Raw(b"})Ns"), CORRUPT),
    "list key": (Raw(b"}]Ns"), CORRUPT),
    "key set twice": (Raw(b"}K\1NsK\1Ns"), CORRUPT),
    "key set twice at once": (Raw(b"}(K\1NK\1Nu"), CORRUPT),
    "tuple of nothing": (Raw(b"(\x85"), CORRUPT),
    "tuple across a mark": (Raw(b"N(N\x87"), CORRUPT),
    "items without a mark": (Raw(b"}" + b"uuu"), CORRUPT),
    "text that is no UTF-8": (Raw(b"X\2\0\0\0\xc3\x28"), CORRUPT),
    "text with a surrogate": (Raw(b"X\3\0\0\0\xed\xa0\x80"), CORRUPT),
    "short string with high bytes": (Raw(b"U\1\xff"), CORRUPT),
    "text longer than the file": (Raw(b"X\xff\xff\xff\x7f"), COMPLEX),
    "integer of 255 bytes": (Raw(b"\x8a\xff" + bytes(255)), COMPLEX),
    "persistent id of text": (Reference("storage"), UNSAFE),
    "persistent id of a list": (Reference(["storage", FLOATS, "0", "cpu", 4]), UNSAFE),
    "persistent id of a module": (Reference(("module", FLOATS, "0", "cpu", 4)), UNSAFE),
    "persistent id with view": (Reference(("storage", FLOATS, "0", "cpu", 4, (1, 2))), CORRUPT),
    "storage class of another module": (
        Reference(("storage", Name("torch", "Size"), "0", "cpu", 4)),
        UNSAFE,
    ),
    "storage key that is a path": (Reference(("storage", FLOATS, "../0", "cpu", 0)), CORRUPT),
    "storage key with a newline": (Reference(("storage", FLOATS, "9\n", "cpu", 0)), CORRUPT),
    "storage of negative size": (Held(b"", FLOATS, -1, "9"), CORRUPT),
    "storage of true size": (Held(bytes(4), FLOATS, numel=True, key="9"), CORRUPT),
    "storage with a long location": (Held(b"", FLOATS, 0, "9", "c" * 65), CORRUPT),
    "storage smaller than declared": (Held(bytes(12), FLOATS, 4, "9"), CORRUPT),
    "storage larger than declared": (Held(bytes(20), FLOATS, 4, "9"), CORRUPT),
    "storage declared twice": (
        [tensor(held(bytes(16), "Float", "9"), (4,)), tensor(held(bytes(16), "Int", "9"), (4,))],
        CORRUPT,
    ),
    "tensor beyond its storage": (_v2(2, (5,)), BOUNDS),
    "tensor behind its storage": (_v2(1, 1), BOUNDS),
    "tensor that strides outside": (_v2(3, (2,)), BOUNDS),
    "stride of zero": (Call(REBUILD_V2, (STORE, 0, (9, 9), (0, 0), False, ordered())), BOUNDS),
    "tensor of 2^41 elements": (_v2(2, (1 << 41,)), COMPLEX),
    "rank of 17": (
        Call(REBUILD_V2, (STORE, 0, (1,) * 17, (1,) * 17, False, ordered())),
        CORRUPT,
    ),
    "negative shape": (_v2(2, (-4,)), CORRUPT),
    "negative stride": (_v2(3, (-1,)), CORRUPT),
    "negative offset": (_v2(1, -1), CORRUPT),
    "boolean offset": (_v2(1, value=True), CORRUPT),
    "shape of floats": (_v2(2, (4.0,)), CORRUPT),
    "shape of a list": (_v2(2, [4]), CORRUPT),
    "shape and stride of two ranks": (_v2(3, (1, 1)), CORRUPT),
    "tensor with hooks": (_v2(5, ordered({"x": 1})), UNSAFE),
    "tensor whose hooks are a list": (_v2(5, []), UNSAFE),
    "tensor whose gradient is 1": (_v2(4, 1), UNSAFE),
    "tensor that is conjugated": (Call(REBUILD_V2, (*SHAPE, {"conj": True})), UNSAFE),
    "tensor with too much": (Call(REBUILD_V2, (*SHAPE, None, None)), UNSAFE),
    "tensor with too little": (Call(REBUILD_V2, SHAPE[:5]), UNSAFE),
    "tensor of a tensor": (_v2(0, TENSOR), UNSAFE),
    "tensor of untyped bytes": (_v2(0, V3[0]), UNSAFE),
    "v3 of a typed storage": (_v3(0, STORE), UNSAFE),
    "v3 of a complex dtype": (_v3(6, Name("torch", "Size")), UNSAFE),
    "v3 of a dtype by text": (_v3(6, "uint8"), UNSAFE),
    "v3 beyond its storage": (_v3(6, Name("torch", "float64")), BOUNDS),
    "name twice by dots": ({"a.b": 1, "a": {"b": 2}}, CORRUPT),
    "name twice by type": ({1: 1, "1": 2}, CORRUPT),
    "name with a newline": ({"a\nb": TENSOR}, CORRUPT),
    "name with a NUL": ({"a\0b": TENSOR}, CORRUPT),
    "name of 600 bytes": ({"a" * 600: TENSOR}, COMPLEX),
    "collections in each other": (Raw(b"]" * 200 + b"a" * 199), COMPLEX),
}


def roots() -> dict[str, tuple[object, str]]:
    """Return every object that must be refused, with the code of its refusal."""
    gadgets = {
        f"gadget {path}": (Call(Name(*path.rsplit(".", 1)), (f"touch {MARKER}",)), UNSAFE)
        for path in GADGETS
    }
    opcodes = {f"opcode {name}": (Raw(code), UNSAFE) for name, code in OPCODES.items()}
    values = gadgets | opcodes | VALUES
    found: dict[str, tuple[object, str]] = {
        name: (lora() | {"x": value}, code) for name, (value, code) in values.items()
    }
    shared: list[object] = [TENSOR]
    for _ in range(30):
        shared = [shared, shared]
    endless: list[object] = []
    endless.append(endless)
    found["lists shared 2^30 times"] = (lora() | {"x": shared}, COMPLEX)
    found["list inside itself"] = (lora() | {"x": endless}, CORRUPT)
    found["a value left over"] = (Raw(b"NN"), CORRUPT)
    found["a mark left open"] = (Raw(b"(N"), CORRUPT)
    found["a string"] = ("weights", "lora_no_tensors")
    found["an empty dictionary"] = ({}, "lora_no_tensors")
    found["an empty state dict"] = ({"state_dict": {}, "x": TENSOR}, "lora_no_tensors")
    found["an unnamed tensor"] = (TENSOR, "lora_no_tensors")
    found["an empty name"] = ({"": TENSOR}, CORRUPT)
    found["a filled OrderedDict with a gadget"] = (
        Filled(Call(ORDERED, ()), {"x": Call(Name("os", "system"), (f"touch {MARKER}",))}),
        UNSAFE,
    )
    return found
