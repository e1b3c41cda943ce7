"""Reports on disk: a folder for each evaluation, written whole or not at all."""

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from lora_server.filesystem import disk_errors, make_folder, sync_folder

FILENAME = "report.json"
_ID = re.compile(r"ev_[0-9a-f]{24}")
_FOLDER_MODE = 0o750


class Reports:
    """The reports under one folder; everything here blocks.

    Raises:
        StorageFull, StorageUnusable: from any operation, when the disk says no.

    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, evaluation_id: str, text: str) -> None:
        """Keep a report; durable on return, and nothing is left of one that does not fit."""
        folder = self._of(evaluation_id)
        with disk_errors():
            make_folder(folder, _FOLDER_MODE)
            unfinished = folder / f"{FILENAME}.part"
            try:
                with unfinished.open("wb") as file:
                    file.write(text.encode())
                    file.flush()
                    os.fsync(file.fileno())
                unfinished.replace(folder / FILENAME)
                sync_folder(folder)
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)
                raise

    def read(self, evaluation_id: str) -> str | None:
        """Return a report; None where there is none."""
        with disk_errors(), suppress(FileNotFoundError):
            return (self._of(evaluation_id) / FILENAME).read_text(encoding="utf-8")
        return None

    def remove(self, evaluation_id: str) -> None:
        """Drop what is kept of an evaluation, if anything is."""
        shutil.rmtree(self._of(evaluation_id), ignore_errors=True)

    def _of(self, evaluation_id: str) -> Path:
        if not _ID.fullmatch(evaluation_id):
            raise ValueError(evaluation_id)
        return self._folder / evaluation_id
