"""Reports on disk: a folder for each evaluation, which is there whole or not at all."""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from lora_server.filesystem import disk_errors, make_folder, sync_folder

REPORT = "report.json"
PAGE = "report.html"
_ID = re.compile(r"ev_[0-9a-f]{24}")
_FOLDER_MODE = 0o750


class Reports:
    """The reports under one folder; everything here blocks.

    Raises:
        StorageFull, StorageUnusable: from any operation, when the disk says no.

    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, evaluation_id: str, texts: Mapping[str, str]) -> None:
        """Keep the files of a report; durable on return, and nothing stays of what does not fit."""
        folder = self._of(evaluation_id)
        unfinished = _unfinished(folder)
        with disk_errors():
            make_folder(self._folder, _FOLDER_MODE)
            _remove(unfinished, folder)  # of an earlier try that was broken off
            try:
                unfinished.mkdir(_FOLDER_MODE)
                for name, text in texts.items():
                    _write(unfinished / name, text)
                sync_folder(unfinished)
                unfinished.rename(folder)
                sync_folder(self._folder)
            except OSError:
                _remove(unfinished, folder)
                raise

    def path(self, evaluation_id: str, name: str) -> Path:
        """Return where a file of a report stands, if there is one."""
        return self._of(evaluation_id) / name

    def read(self, evaluation_id: str, name: str) -> bytes | None:
        """Return a file of a report; None where there is none."""
        with disk_errors():
            try:
                return self.path(evaluation_id, name).read_bytes()
            except FileNotFoundError:
                return None

    def remove(self, evaluation_id: str) -> None:
        """Drop what is kept of an evaluation, if anything is."""
        folder = self._of(evaluation_id)
        _remove(_unfinished(folder), folder)

    def _of(self, evaluation_id: str) -> Path:
        if not _ID.fullmatch(evaluation_id):
            raise ValueError(f"{evaluation_id!r} is no id")
        return self._folder / evaluation_id


def _unfinished(folder: Path) -> Path:
    return folder.with_suffix(".part")


def _write(path: Path, text: str) -> None:
    with path.open("wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
