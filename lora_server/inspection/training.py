"""Training facts in the trainers' own words; private, for names and paths are among them."""

from collections import Counter
from collections.abc import Iterator, Mapping
from heapq import nlargest

from lora_server.inspection import metadata as meta
from lora_server.inspection.datasets import DataSets
from lora_server.inspection.record import Dataset, Fact, Tag, Training

MAX_FACTS = 80
MAX_DATASETS = 50
MAX_TAGS = 50

# Each fact with the keys that may hold it, the first that speaks wins.
_PLAIN: Mapping[str, tuple[str, ...]] = {
    "title": ("modelspec.title", "ss_output_name", "name"),
    "author": ("modelspec.author",),
    "description": ("modelspec.description",),
    "license": ("modelspec.license",),
    "date": ("modelspec.date", "ss_training_finished_at"),
    "started_at": ("ss_training_started_at",),
    "finished_at": ("ss_training_finished_at",),
    "resolution": ("modelspec.resolution", "ss_resolution"),
    "tags": ("modelspec.tags",),
    "merged_from": ("modelspec.merged_from",),
    "prediction_type": ("modelspec.prediction_type",),
    "timestep_range": ("modelspec.timestep_range",),
    "encoder_layer": ("modelspec.encoder_layer",),
    "implementation": ("modelspec.implementation",),
    "architecture_claim": ("modelspec.architecture",),
    "default_weight": ("modelspec.lora_default_weight",),
    "comment": ("ss_training_comment",),
    "trainer_commit": ("ss_sd_scripts_commit_hash", "ot_revision"),
    "trainer_branch": ("ot_branch",),
    "network_module": ("ss_network_module",),
    "network_dim": ("ss_network_dim",),
    "network_alpha": ("ss_network_alpha",),
    "network_args": ("ss_network_args",),
    "base_model_claim": ("ss_base_model_version",),
    "base_model_file": ("ss_sd_model_name",),
    "base_model_hash": ("ss_new_sd_model_hash", "ss_sd_model_hash"),
    "vae_file": ("ss_vae_name",),
    "learning_rate": ("ss_learning_rate",),
    "unet_learning_rate": ("ss_unet_lr",),
    "text_encoder_learning_rate": ("ss_text_encoder_lr",),
    "lr_scheduler": ("ss_lr_scheduler",),
    "optimizer": ("ss_optimizer",),
    "image_count": ("ss_num_train_images",),
    "reg_image_count": ("ss_num_reg_images",),
    "epoch_count": ("ss_num_epochs",),
    "epoch": ("ss_epoch",),
    "steps": ("ss_steps",),
    "max_train_steps": ("ss_max_train_steps",),
    "clip_skip": ("ss_clip_skip",),
    "seed": ("ss_seed",),
    "mixed_precision": ("ss_mixed_precision",),
}

# Facts inside JSON: fact → (key of the metadata, key inside). Only gaps are filled.
_NESTED: Mapping[str, tuple[str, str]] = {
    "trainer": ("software", "name"),
    "trainer_version": ("software", "version"),
    "steps": ("training_info", "step"),
    "epoch": ("training_info", "epoch"),
    "learning_rate": ("ot_config", "learning_rate"),
    "epoch_count": ("ot_config", "epochs"),
    "resolution": ("ot_config", "resolution"),
    "lr_scheduler": ("ot_config", "learning_rate_scheduler"),
    "network_dim": ("ot_config", "lora_rank"),
    "network_alpha": ("ot_config", "lora_alpha"),
    "network_module": ("ot_config", "peft_type"),
    "base_model_file": ("ot_config", "base_model_name"),
    "base_model_claim": ("ot_config", "model_type"),
    "seed": ("ot_config", "seed"),
}

# PEFT's configuration, whose keys carry the component that they belong to.
_PEFT_KEYS = frozenset(
    {
        *("r", "lora_alpha", "use_rslora", "use_dora", "peft_type", "base_model_name_or_path"),
        *("task_type", "bias", "init_lora_weights"),
    }
)


def training(metadata: Mapping[str, str], data: DataSets) -> Training:
    """Return the training facts, data sets and tags that the metadata holds."""
    facts = {fact.name: fact for fact in (*_peft(metadata), *_nested(metadata), *_plain(metadata))}
    tags: Counter[str] = Counter()
    for counts in data.tags.values():
        tags.update(counts)
    datasets = [Dataset(name, count) for name, count in data.image_counts.items()]
    top = nlargest(MAX_TAGS, tags.items(), key=lambda item: item[1])
    return Training(
        facts=tuple(facts.values())[:MAX_FACTS],
        facts_cut=max(0, len(facts) - MAX_FACTS),
        datasets=tuple(datasets[:MAX_DATASETS]),
        datasets_cut=max(0, len(datasets) - MAX_DATASETS),
        tags=tuple(Tag(meta.text(tag), count) for tag, count in top),
        tags_cut=max(0, len(tags) - MAX_TAGS),
    )


def _plain(metadata: Mapping[str, str]) -> Iterator[Fact]:
    for name, keys in _PLAIN.items():
        for key in keys:
            value = meta.said(metadata, key)
            if value:
                yield Fact(name, value, key)
                break


def _nested(metadata: Mapping[str, str]) -> Iterator[Fact]:
    wanted = {key for key, _ in _NESTED.values() if key in metadata}
    held = {key: meta.table(meta.parsed(metadata[key])) for key in wanted}
    for name, (key, inside) in _NESTED.items():
        value = meta.scalar(held.get(key, {}).get(inside))
        if value:
            yield Fact(name, value, key)


def _peft(metadata: Mapping[str, str]) -> Iterator[Fact]:
    config = meta.table(meta.parsed(metadata.get("lora_adapter_metadata")))
    for key, value in config.items():
        if key.rpartition(".")[2] in _PEFT_KEYS and meta.scalar(value):
            yield Fact(f"peft.{meta.text(key)}", meta.scalar(value), "lora_adapter_metadata")
