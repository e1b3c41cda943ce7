"""The data sets that kohya's metadata describes: directories, image counts, class tokens, tags."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lora_server.inspection import metadata as meta

MAX_DIRECTORIES = 1_000


@dataclass(frozen=True, slots=True)
class DataSets:
    """Training data as described; directories are named without the path to them."""

    image_counts: Mapping[str, int | None]
    class_tokens: tuple[str, ...]
    tags: Mapping[str, Counter[str]]  # directory → tag → images


def data_sets(metadata: Mapping[str, str]) -> DataSets:
    """Return what `ss_dataset_dirs`, `ss_datasets` and `ss_tag_frequency` describe."""
    tags = _tags(meta.table(meta.parsed(metadata.get("ss_tag_frequency"))))
    listed = meta.table(meta.parsed(metadata.get("ss_dataset_dirs")))
    counts: dict[str, int | None] = dict.fromkeys(list(tags)[:MAX_DIRECTORIES])
    for path, facts in list(listed.items())[:MAX_DIRECTORIES]:
        counts[_name(path)] = meta.count(meta.table(facts).get("img_count"))
    counts.pop("", None)
    tokens = dict.fromkeys(_class_tokens(meta.parsed(metadata.get("ss_datasets"))))
    return DataSets(counts, tuple(tokens), tags)


def _tags(listed: Mapping[str, object]) -> dict[str, Counter[str]]:
    tables: dict[str, Counter[str]] = {}
    for path, tags in listed.items():
        counted = {tag.strip(): meta.count(value) for tag, value in meta.table(tags).items()}
        used = {tag: value for tag, value in counted.items() if tag and value}
        tables.setdefault(_name(path), Counter()).update(used)
    return tables


def _class_tokens(listed: object) -> Iterator[str]:
    for dataset in meta.rows(listed):
        for subset in meta.rows(dataset.get("subsets")):
            if subset.get("is_reg") is not True:
                yield meta.text(subset.get("class_tokens"))


def _name(path: str) -> str:
    return meta.text(path.replace("\\", "/").rstrip("/").rpartition("/")[2])
