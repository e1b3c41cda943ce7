"""Evaluations in the catalogue; each operation is one durable transaction."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Float,
    Index,
    Integer,
    RowMapping,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    update,
)

from lora_server.catalog.database import Database
from lora_server.catalog.tables import loras, metadata
from lora_server.records import (
    AT_WORK,
    WAITING,
    Evaluation,
    EvaluationStatus,
    PartialPath,
)

_BATCH = 500  # ids in one statement; SQLite allows 32,766 variables

evaluations = Table(
    "evaluations",
    metadata,
    Column("id", String, primary_key=True),
    Column("sha256", String, nullable=False),
    Column("partial_path", String, nullable=False),
    Column("tier", String, nullable=False),
    Column("plan", String, nullable=False),
    Column("plan_key", String, nullable=False),
    Column("evaluator", String, nullable=False),
    Column("requested_by", String),
    Column("status", String, nullable=False),
    Column("stage", String, nullable=False),
    Column("progress", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("timeout_s", Float, nullable=False),
    Column("verdict", String),
    Column("problem", String),
    Column("message", String),
    Column("created_at", Integer, nullable=False),
    Column("started_at", Integer),
    Column("finished_at", Integer),
)

Index("evaluations_of_content", evaluations.c.sha256, evaluations.c.finished_at)
Index("evaluations_of_plan", evaluations.c.plan_key)
Index("evaluations_by_status", evaluations.c.status, evaluations.c.created_at)
Index("evaluations_by_age", evaluations.c.created_at)


@dataclass(frozen=True, slots=True)
class EvaluationQuery:
    """Which evaluations, newest first, and which page of them."""

    skip: int = 0
    limit: int = 100
    status: str | None = None
    verdict: str | None = None
    tier: str | None = None
    sha256: str | None = None
    partial_path: str | None = None


@dataclass(frozen=True, slots=True)
class EvaluationPage:
    """A page of evaluations, and how many match in all."""

    items: tuple[Evaluation, ...]
    count: int


class EvaluationCatalog:
    """What was asked, and what came of it.

    Raises:
        CatalogUnusable: from any operation, when the database cannot be read or written.

    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, evaluation: Evaluation) -> None:
        """Enter one that was just asked for."""
        await self._database.write(insert(evaluations).values(**_row_of(evaluation)))

    async def get(self, evaluation_id: str) -> Evaluation | None:
        """Return one by its id."""
        return await self._first(evaluations.c.id == evaluation_id)

    async def page(self, query: EvaluationQuery) -> EvaluationPage:
        """Return a page of evaluations, newest first."""
        conditions = _conditions(query)
        rows, counts = await self._database.read(
            select(evaluations)
            .where(*conditions)
            .order_by(evaluations.c.created_at.desc(), evaluations.c.id.desc())
            .offset(query.skip)
            .limit(query.limit),
            select(func.count().label("matches")).select_from(evaluations).where(*conditions),
        )
        return EvaluationPage(tuple(map(_evaluation_of, rows)), counts[0]["matches"])

    async def latest(self, plan_key: str) -> Evaluation | None:
        """Return the newest one of a plan that succeeded or has not ended."""
        good = [EvaluationStatus.SUCCEEDED, *WAITING, *AT_WORK]
        return await self._first(evaluations.c.plan_key == plan_key, evaluations.c.status.in_(good))

    async def waiting(self) -> Sequence[Evaluation]:
        """Return those that wait, in the order in which they will be taken."""
        (rows,) = await self._database.read(
            select(evaluations).where(evaluations.c.status.in_(WAITING)).order_by(*_TURN)
        )
        return [_evaluation_of(row) for row in rows]

    async def claim(self, tiers: Collection[str], now: int) -> Evaluation | None:
        """Take the next one that waits; here it is `running` from now on."""
        turn = (
            select(evaluations.c.id)
            .where(evaluations.c.status.in_(WAITING), evaluations.c.tier.in_(tiers))
            .order_by(*_TURN)
            .limit(1)
        )
        claimed = update(evaluations).where(evaluations.c.id == turn.scalar_subquery())
        (rows,) = await self._database.write(
            claimed.values(
                status=EvaluationStatus.RUNNING,
                started_at=now,
                attempts=evaluations.c.attempts + 1,
            ).returning(evaluations)
        )
        return _evaluation_of(rows[0]) if rows else None

    async def set(self, evaluation_id: str, **changes: Any) -> Evaluation | None:
        """Note how far one is; None when it is not listed any more."""
        statement = update(evaluations).where(evaluations.c.id == evaluation_id)
        (rows,) = await self._database.write(statement.values(**changes).returning(evaluations))
        return _evaluation_of(rows[0]) if rows else None

    async def interrupt_all(self) -> int:
        """Note that whatever was at work was broken off; returns how many that were."""
        statement = update(evaluations).where(evaluations.c.status.in_(AT_WORK))
        interrupted = statement.values(status=EvaluationStatus.INTERRUPTED)
        (rows,) = await self._database.write(interrupted.returning(evaluations.c.id))
        return len(rows)

    async def replaced(self) -> Sequence[str]:
        """Return the ids of ended evaluations that a newer success of the same plan replaces."""
        newer = evaluations.alias()
        (rows,) = await self._database.read(
            select(evaluations.c.id)
            .where(
                evaluations.c.status.not_in([*WAITING, *AT_WORK]),
                select(newer.c.id)
                .where(
                    newer.c.plan_key == evaluations.c.plan_key,
                    newer.c.status == EvaluationStatus.SUCCEEDED,
                    newer.c.id > evaluations.c.id,  # ids sort by time
                )
                .exists(),
            )
            .limit(_BATCH)
        )
        return [row["id"] for row in rows]

    async def orphaned(self) -> Sequence[str]:
        """Return the ids of ended evaluations of contents that are not listed any more."""
        (rows,) = await self._database.read(
            select(evaluations.c.id)
            .where(
                evaluations.c.status.not_in([*WAITING, *AT_WORK]),
                ~select(loras.c.id).where(loras.c.sha256 == evaluations.c.sha256).exists(),
            )
            .limit(_BATCH)
        )
        return [row["id"] for row in rows]

    async def forget(self, evaluation_ids: Collection[str]) -> None:
        """Drop evaluations."""
        ids = list(evaluation_ids)
        batches = (ids[at : at + _BATCH] for at in range(0, len(ids), _BATCH))
        await self._database.write(
            *(delete(evaluations).where(evaluations.c.id.in_(batch)) for batch in batches)
        )

    async def verdicts(self, contents: Collection[str]) -> Mapping[str, str]:
        """Return the verdict of the newest evaluation of each content that has one."""
        # SQLite takes the other columns of a group from the row that holds the maximum.
        statement = (
            select(evaluations.c.sha256, evaluations.c.verdict, func.max(evaluations.c.finished_at))
            .where(evaluations.c.verdict.is_not(None), evaluations.c.sha256.in_(set(contents)))
            .group_by(evaluations.c.sha256)
        )
        (rows,) = await self._database.read(statement)
        return {row["sha256"]: row["verdict"] for row in rows}

    async def _first(self, *conditions: ColumnElement[bool]) -> Evaluation | None:
        newest = (evaluations.c.created_at.desc(), evaluations.c.id.desc())
        query = select(evaluations).where(*conditions).order_by(*newest).limit(1)
        (rows,) = await self._database.read(query)
        return _evaluation_of(rows[0]) if rows else None


# People before the server's own, then first come, first served.
_TURN = (evaluations.c.requested_by.is_(None), evaluations.c.created_at, evaluations.c.id)


def _conditions(query: EvaluationQuery) -> list[ColumnElement[bool]]:
    names = ("status", "verdict", "tier", "sha256", "partial_path")
    wanted = {name: getattr(query, name) for name in names}
    return [evaluations.c[name] == value for name, value in wanted.items() if value is not None]


def _row_of(evaluation: Evaluation) -> dict[str, Any]:
    columns = {name: getattr(evaluation, name) for name in evaluations.c.keys()}  # noqa: SIM118
    return {**columns, "plan": json.dumps(evaluation.plan)}


def _evaluation_of(row: RowMapping) -> Evaluation:
    return Evaluation(
        **{
            **row,
            "plan": json.loads(row["plan"]),
            "partial_path": PartialPath(row["partial_path"]),
            "status": EvaluationStatus(row["status"]),
        }
    )
