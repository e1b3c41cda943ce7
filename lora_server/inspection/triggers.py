"""Trigger words with their sources, the most reliable source first and none merged."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from heapq import nlargest

from lora_server.inspection import metadata as meta
from lora_server.inspection.datasets import DataSets
from lora_server.inspection.record import TriggerWord, TriggerWords

MAX_WORDS = 50
MAX_WORD_CHARS = 200
MAX_TAGS_PROPOSED = 10
# A caption tag on nearly all images may be the trigger; bucketing and typing errors lose a few.
NEARLY_ALL = 0.9
_DIRECTORY = re.compile(r"[0-9]{1,6}_(?P<trigger>.+)")


def trigger_words(metadata: Mapping[str, str], data: DataSets) -> TriggerWords:
    """Return what each source names; within one source a word counts once."""
    sources: Mapping[str, Iterable[str]] = {
        "modelspec.trigger_phrase": [meta.said(metadata, "modelspec.trigger_phrase")],
        "modelspec.usage_hint": [meta.said(metadata, "modelspec.usage_hint")],
        "ss_datasets.class_tokens": data.class_tokens,
        "ss_dataset_dirs": _directory_names(data.image_counts),
        "ss_tag_frequency": _common_tags(data),
    }
    words: dict[TriggerWord, None] = {}
    for source, named in sources.items():
        words.update((TriggerWord(word[:MAX_WORD_CHARS], source), None) for word in named if word)
    return TriggerWords(tuple(words)[:MAX_WORDS], max(0, len(words) - MAX_WORDS))


def _directory_names(names: Iterable[str]) -> Iterator[str]:
    matches = (_DIRECTORY.fullmatch(name) for name in names)
    return (match["trigger"] for match in matches if match is not None)


def _common_tags(data: DataSets) -> Iterator[str]:
    """Yield tags that nearly all images carry, over all data sets together."""
    counts: Counter[str] = Counter()
    images = 0
    for name, tags in data.tags.items():
        counts.update(tags)
        # Without a count, the most frequent tag is taken to be on every image.
        images += data.image_counts.get(name) or max(tags.values(), default=0)
    common = [(tag, count) for tag, count in counts.items() if count >= NEARLY_ALL * images]
    for tag, _ in nlargest(MAX_TAGS_PROPOSED, common, key=lambda item: item[1]):
        yield meta.text(tag)
