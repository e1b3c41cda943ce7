"""What weights measured, by their content: the memory behind neighbours and cohorts."""

import json
from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Column, LargeBinary, String, Table, delete, func, select
from sqlalchemy.dialects.sqlite import insert

from lora_server.catalog.database import Database
from lora_server.catalog.evaluations import evaluations
from lora_server.catalog.selection import BASE_MODEL
from lora_server.catalog.tables import LISTED, loras, metadata, record_of
from lora_server.records import Place, StoredLora, Verdict

measurements = Table(
    "measurements",
    metadata,
    Column("sha256", String, primary_key=True),
    Column("evaluator", String, nullable=False),
    Column("features", String, nullable=False),
    Column("sketch", LargeBinary, nullable=False),
)


class MeasurementCatalog:
    """One measurement a content, whatever files hold it.

    Raises:
        CatalogUnusable: from any operation, when the database cannot be read or written.

    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def next_unevaluated(self, evaluator: str) -> StoredLora | None:
        """Return the newest live, accepted file whose weights nobody has evaluated yet."""
        tried = select(evaluations.c.id).where(
            evaluations.c.sha256 == loras.c.sha256,
            evaluations.c.tier == "weights",
            evaluations.c.evaluator == evaluator,
        )
        (rows,) = await self._database.read(
            select(*LISTED)
            .where(
                loras.c.place == Place.MODELS,
                loras.c.verdict == Verdict.ACCEPTED,
                ~tried.exists(),
            )
            .order_by(loras.c.id.desc())
            .limit(1)
        )
        return record_of(rows[0]) if rows else None

    async def put(
        self, sha256: str, *, evaluator: str, features: Mapping[str, float], sketch: bytes
    ) -> None:
        """Keep what a content's weights measured, over what was known before."""
        values = {"evaluator": evaluator, "features": json.dumps(features), "sketch": sketch}
        statement = insert(measurements).values(sha256=sha256, **values)
        await self._database.write(
            statement.on_conflict_do_update(index_elements=["sha256"], set_=values)
        )

    async def sketches(
        self, evaluator: str, *, besides: str, after: str, limit: int
    ) -> Sequence[tuple[str, bytes]]:
        """Return digest and sketch of live contents, ordered by digest, from `after` on."""
        live = select(loras.c.id).where(
            loras.c.sha256 == measurements.c.sha256, loras.c.place == Place.MODELS
        )
        (rows,) = await self._database.read(
            select(measurements.c.sha256, measurements.c.sketch)
            .where(
                measurements.c.sha256 > after,
                measurements.c.sha256 != besides,
                measurements.c.evaluator == evaluator,
                live.exists(),
            )
            .order_by(measurements.c.sha256)
            .limit(limit)
        )
        return [(row["sha256"], row["sketch"]) for row in rows]

    async def sketches_of(self, contents: Collection[str]) -> Mapping[str, bytes]:
        """Return the sketches of contents, as far as there are any."""
        wanted = measurements.c.sha256.in_(set(contents))
        (rows,) = await self._database.read(
            select(measurements.c.sha256, measurements.c.sketch).where(wanted)
        )
        return {row["sha256"]: row["sketch"] for row in rows}

    async def count(self, evaluator: str, *, besides: str) -> int:
        """Return how many live contents were measured by these rules."""
        live = select(loras.c.id).where(
            loras.c.sha256 == measurements.c.sha256, loras.c.place == Place.MODELS
        )
        (rows,) = await self._database.read(
            select(func.count().label("known"))
            .select_from(measurements)
            .where(
                measurements.c.sha256 != besides,
                measurements.c.evaluator == evaluator,
                live.exists(),
            )
        )
        return int(rows[0]["known"])

    async def stack_mates(
        self, *, entity_type: str, base_model: str, limit: int
    ) -> Sequence[StoredLora]:
        """Return the newest live, accepted file of each other type that has this base model."""
        newest = (
            select(func.max(loras.c.id))
            .where(
                loras.c.place == Place.MODELS,
                loras.c.verdict == Verdict.ACCEPTED,
                loras.c.entity_type != entity_type,
                BASE_MODEL.is_not_distinct_from(base_model),
            )
            .group_by(loras.c.entity_type)
        )
        (rows,) = await self._database.read(
            select(*LISTED).where(loras.c.id.in_(newest)).order_by(loras.c.id.desc()).limit(limit)
        )
        return [record_of(row) for row in rows]

    async def cohort(
        self, evaluator: str, *, entity_type: str, base_model: str | None, besides: str, limit: int
    ) -> Sequence[Mapping[str, float]]:
        """Return the features of other live contents of a type and base model."""
        same_base = BASE_MODEL.is_not_distinct_from(base_model)
        (rows,) = await self._database.read(
            select(measurements.c.features)
            .join(loras, loras.c.sha256 == measurements.c.sha256)
            .where(
                loras.c.place == Place.MODELS,
                loras.c.entity_type == entity_type,
                same_base,
                measurements.c.sha256 != besides,
                measurements.c.evaluator == evaluator,
            )
            .group_by(measurements.c.sha256)
            .order_by(func.max(loras.c.id).desc())
            .limit(limit)
        )
        return [json.loads(row["features"]) for row in rows]

    async def forget_orphans(self) -> None:
        """Drop measurements of contents that are not listed any more."""
        gone = ~select(loras.c.id).where(loras.c.sha256 == measurements.c.sha256).exists()
        await self._database.write(delete(measurements).where(gone))
