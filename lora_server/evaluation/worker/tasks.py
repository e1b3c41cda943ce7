"""What a child can be asked to do; it imports what its task needs and nothing else."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

Progress = Callable[[float, str], None]

# Each is a function `run` of that module.
TASKS: Mapping[str, str] = {
    "measure": "lora_server.evaluation.worker.task_measure",
    "report": "lora_server.evaluation.worker.task_report",
}


class Answer(NamedTuple):
    """What a task returns: facts for the front end, and a text that it keeps unread.

    Who gets one from a worker checks the facts (`saying`) before they are used.
    """

    facts: Any
    text: str = ""


# Takes descriptors, a Progress and named arguments; FileRefused where a file does not allow it.
Task = Callable[..., Answer]


def find(name: str) -> Task:
    """Return the task of a name; KeyError where there is none."""
    task: Task = import_module(TASKS[name]).run
    return task
