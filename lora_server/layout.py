"""Where things stand on disk; nothing else joins these paths.

{models_dir}/{entity_type}/{stored name}    what inference reads
{bin_dir}/{entity_type}/{stored name}       soft-deleted
{staging_dir}/{random}.part                 uploads in flight, gone after a restart
{state_dir}/catalog.sqlite3                 what is known of the files
{state_dir}/evaluations/{id}/report.json    what evaluations found

Each of the four folders is locked (flock) by the one daemon that owns it.
"""

from dataclasses import dataclass
from pathlib import Path

from lora_server.config import StorageConfig
from lora_server.records import NO_TYPE, Location, PartialPath, Place


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one configuration."""

    models: Path
    bin: Path
    staging: Path
    state: Path
    entity_types: tuple[str, ...]  # every folder that may stand in models and bin

    @classmethod
    def of(cls, storage: StorageConfig) -> "Layout":
        """Draw the layout that a configuration asks for."""
        return cls(
            models=storage.models_dir.absolute(),
            bin=storage.bin_dir.absolute(),
            staging=storage.staging_dir.absolute(),
            state=storage.state_dir.absolute(),
            entity_types=(*storage.entity_types, NO_TYPE),
        )

    def root(self, place: Place) -> Path:
        """Return the top of a tree."""
        return {Place.STAGING: self.staging, Place.MODELS: self.models, Place.BIN: self.bin}[place]

    def folder(self, place: Place, entity_type: str) -> Path:
        """Return the folder that holds an entity type; staging has one for all."""
        return self.root(place) / entity_type

    def path(self, location: Location) -> Path:
        """Return the whole path of a file."""
        return self.folder(location.place, location.entity_type) / location.name

    @property
    def catalog(self) -> Path:
        """Return the path of the catalogue's database."""
        return self.state / "catalog.sqlite3"

    @property
    def evaluations(self) -> Path:
        """Return the folder of the evaluations' reports."""
        return self.state / "evaluations"

    @property
    def roots(self) -> tuple[Path, ...]:
        """Return the tops of the trees, in the order in which files travel."""
        return (self.staging, self.models, self.bin)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Return every folder that files move from or to, in the order in which they travel."""
        models, bins = (
            tuple(root / entity_type for entity_type in self.entity_types)
            for root in (self.models, self.bin)
        )
        return (self.staging, self.models, *models, self.bin, *bins)

    def bin_path_of(self, raw: str) -> PartialPath | None:
        """Turn a `bin_path` as delete returned it into a path within the bin, if it is one."""
        prefix = f"{self.bin}/"
        return PartialPath(raw.removeprefix(prefix)) if raw.startswith(prefix) else None
