"""What a child can be asked to do: descriptors and plain arguments in, plain data out."""

from collections.abc import Callable, Mapping
from typing import Any

Progress = Callable[[float, str], None]
Task = Callable[..., dict[str, Any]]

TASKS: Mapping[str, Task] = {}
