"""What a listing asks for, and the SQL of it."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, UnaryExpression, func, select

from lora_server import names
from lora_server.catalog.tables import LISTED, loras
from lora_server.records import Place, StoredLora

# What an admin says wins over what was detected.
BASE_MODEL = func.coalesce(loras.c.override_base_model, loras.c.base_model)

SORT_COLUMNS: dict[str, ColumnElement[Any]] = {
    "name": loras.c.name,
    "file_size": loras.c.size,
    "upload_timestamp": loras.c.uploaded_at,
    "deleted_at": loras.c.deleted_at,
    "entity_type": loras.c.entity_type,
    "base_model": BASE_MODEL,
    "adapter": loras.c.adapter,
    "verdict": loras.c.verdict,
}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which files of one tree, in which order, and which page of them."""

    place: Place = Place.MODELS
    skip: int = 0
    limit: int = 100
    entity_type: str | None = None
    q: str | None = None  # part of a name, without regard to case
    base_model: str | None = None
    adapter: str | None = None
    verdict: str | None = None
    sha256: str | None = None
    sort: str = "name"  # a key of SORT_COLUMNS, "-" before it for descending


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a listing, and how many match in all."""

    items: tuple[StoredLora, ...]
    count: int


def page_query(selection: Selection) -> Select[*tuple[Any, ...]]:
    """Return the query for the rows of the page; ties are broken by partial path."""
    return (
        select(*LISTED)
        .where(*_conditions(selection))
        .order_by(_order(selection.sort), loras.c.entity_type, loras.c.name)
        .offset(selection.skip)
        .limit(selection.limit)
    )


def count_query(selection: Selection) -> Select[int]:
    """Return the query for the number of all rows that match."""
    return select(func.count().label("matches")).select_from(loras).where(*_conditions(selection))


def _order(sort: str) -> UnaryExpression[object]:
    column = SORT_COLUMNS[sort.removeprefix("-")]
    return column.desc() if sort.startswith("-") else column.asc()


def _conditions(selection: Selection) -> list[ColumnElement[bool]]:
    exact: dict[ColumnElement[Any], str | None] = {
        loras.c.entity_type: selection.entity_type,
        BASE_MODEL: selection.base_model,
        loras.c.adapter: selection.adapter,
        loras.c.verdict: selection.verdict,
    }
    conditions = [column == value for column, value in exact.items() if value is not None]
    conditions.append(loras.c.place == selection.place)
    if selection.q:
        term = names.key(selection.q)
        conditions.append(
            loras.c.name_key.contains(term, autoescape=True)
            | loras.c.filename_key.contains(term, autoescape=True)
        )
    if selection.sha256:
        conditions.append(has_content(selection.sha256))
    return conditions


def has_content(sha256: str) -> ColumnElement[bool]:
    """Return the condition that a file holds, or was uploaded as, these bytes."""
    return (loras.c.sha256 == sha256) | (loras.c.uploaded_sha256 == sha256)
