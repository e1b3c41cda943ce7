"""What is known of the files: SQLAlchemy Core, async, on an embedded SQLite database."""

from lora_server.catalog.catalog import Catalog
from lora_server.catalog.evaluations import EvaluationQuery
from lora_server.catalog.selection import Page, Selection

__all__ = ["Catalog", "EvaluationQuery", "Page", "Selection"]
