"""What metadata says: trigger words, training facts, digests; all of it bounded."""

import json
from collections.abc import Mapping

import pytest

from lora_server.inspection import Inspection
from lora_server.inspection.metadata import MAX_JSON_CHARS
from lora_server.inspection.record import Dataset, Fact, HashClaim, Tag, TriggerWord
from tests.inspection.support import inspected, tensors_of

LORA = tensors_of("lora_unet_x", {"lora_down.weight": (4, 32), "lora_up.weight": (64, 4)})
HEX = "ab" * 32
KOHYA = {
    "modelspec.trigger_phrase": "ohwx dog",
    "modelspec.usage_hint": "use ohwx",
    "ss_datasets": json.dumps(
        [
            {
                "subsets": [
                    {"class_tokens": "ohwx", "is_reg": False},
                    {"class_tokens": "dog", "is_reg": True},
                    {"class_tokens": None},
                ]
            }
        ]
    ),
    "ss_dataset_dirs": json.dumps({"10_ohwx dog": {"n_repeats": 10, "img_count": 20}}),
    "ss_tag_frequency": json.dumps(
        {"10_ohwx dog": {"ohwx": 20, " grass ": 19, "running": 5}, "second": {"ohwx": 4, "sky": 1}}
    ),
}


def said(metadata: Mapping[str, str]) -> Inspection:
    """Return the inspection of a small LoRA with this metadata."""
    return inspected(LORA, metadata)


def facts(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return name → value of the training facts."""
    return {fact.name: fact.value for fact in said(metadata).training.facts}


def test_trigger_words_come_with_their_sources_in_order() -> None:
    """The same word from several places stays several; captions come last."""
    assert said(KOHYA).trigger_words.words == (
        TriggerWord("ohwx dog", "modelspec.trigger_phrase"),
        TriggerWord("use ohwx", "modelspec.usage_hint"),
        TriggerWord("ohwx", "ss_datasets.class_tokens"),
        TriggerWord("ohwx dog", "ss_dataset_dirs"),
        TriggerWord("ohwx", "ss_tag_frequency"),
    )


def test_a_tag_on_nearly_all_images_may_be_a_trigger() -> None:
    """All data sets count together, by frequency, and rare tags are no triggers."""
    tags = {"a": {"x": 10, "y": 9, "z": 3}, "b": {"x": 10, "y": 10}}

    words = said({"ss_tag_frequency": json.dumps(tags)}).trigger_words.words

    assert [word.word for word in words] == ["x", "y"]


def test_a_directory_names_a_trigger_only_by_kohyas_rule() -> None:
    """<repeats>_<trigger> is a rule, any other directory name is none."""
    names: dict[str, object] = {
        "/data/5_cat person": {},
        "C:\\sets\\7_dog": {},
        "plain": {},
        "_x": {},
        "9_": {},
    }

    words = said({"ss_dataset_dirs": json.dumps(names)}).trigger_words.words

    assert [word.word for word in words] == ["cat person", "dog"]


def test_trigger_words_are_capped_and_the_cut_is_counted() -> None:
    """A thousand class tokens do not become a thousand words."""
    subsets = [{"class_tokens": f"word{number}" + "x" * 900} for number in range(1000)]
    words = said({"ss_datasets": json.dumps([{"subsets": subsets}])}).trigger_words

    assert (len(words.words), words.cut) == (50, 950)
    assert max(len(word.word) for word in words.words) <= 200


def test_data_sets_and_tags_are_private() -> None:
    """Directories and captions are in the training part and nowhere else."""
    training = said(KOHYA).training

    assert Dataset("10_ohwx dog", 20) in training.datasets
    assert Dataset("second", None) in training.datasets
    assert training.tags[0] == Tag("ohwx", 24)


@pytest.mark.parametrize(
    ("metadata", "fact"),
    [
        ({"modelspec.title": "My LoRA"}, Fact("title", "My LoRA", "modelspec.title")),
        ({"ss_output_name": "mine"}, Fact("title", "mine", "ss_output_name")),
        ({"modelspec.author": "Ada"}, Fact("author", "Ada", "modelspec.author")),
        ({"ss_network_dim": "32"}, Fact("network_dim", "32", "ss_network_dim")),
        (
            {"ss_network_module": "networks.lora"},
            Fact("network_module", "networks.lora", "ss_network_module"),
        ),
        ({"ss_optimizer": "AdamW8bit"}, Fact("optimizer", "AdamW8bit", "ss_optimizer")),
        ({"ss_resolution": "(1024, 1024)"}, Fact("resolution", "(1024, 1024)", "ss_resolution")),
        ({"ss_learning_rate": "1e-4"}, Fact("learning_rate", "1e-4", "ss_learning_rate")),
        ({"software": '{"name": "ai-toolkit"}'}, Fact("trainer", "ai-toolkit", "software")),
        ({"training_info": '{"step": 2000}'}, Fact("steps", "2000", "training_info")),
        ({"ot_branch": "master"}, Fact("trainer_branch", "master", "ot_branch")),
        ({"ot_config": '{"epochs": 7}'}, Fact("epoch_count", "7", "ot_config")),
        ({"ot_config": '{"lora_rank": 16}'}, Fact("network_dim", "16", "ot_config")),
        (
            {"lora_adapter_metadata": '{"transformer.lora_alpha": 8}'},
            Fact("peft.transformer.lora_alpha", "8", "lora_adapter_metadata"),
        ),
    ],
)
def test_a_training_fact_is_found(metadata: dict[str, str], fact: Fact) -> None:
    """Each trainer's words end under the same name, with their source."""
    assert fact in said(metadata).training.facts


def test_none_is_no_fact() -> None:
    """Trainers write "None" where they know nothing."""
    assert facts({"ss_optimizer": "None", "ss_seed": "null", "ss_steps": " "}) == {}


def test_kohyas_own_keys_win_over_nested_ones() -> None:
    """A plain key is more explicit than a trainer's configuration."""
    metadata = {"ss_learning_rate": "1e-4", "ot_config": '{"learning_rate": 0.5}'}

    assert facts(metadata) == {"learning_rate": "1e-4"}


def test_values_are_cut_to_one_short_line() -> None:
    """Control characters, surrogates and length do not pass."""
    title = facts({"modelspec.title": "a\n\x00b\ud800" + "é" * 9000})["title"]

    assert title.startswith("a b?é")
    assert (len(title), title.isprintable()) == (500, True)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("[" * 200_000, id="deep"),
        pytest.param('{"a":' * 100_000, id="deep objects"),
        pytest.param("9" * 10_000, id="huge number"),
        pytest.param('{"10_x": {"img_count": ' + "9" * 4000 + "}}", id="huge count"),
        pytest.param('{"10_x": ' + "9" * 5000 + "}", id="number beyond conversion"),
        pytest.param('{"r": 1e999, "lora_alpha": -1e999, "step": 1e400}', id="infinite"),
        pytest.param('[[[]], 1, null, {"subsets": 3}, {"subsets": [1, {"class_tokens": []}]}]',
                     id="wrong types"),
        pytest.param('{"a": {"b": "c", "d": -1, "e": true, "f": [1]}, "g": null}', id="no counts"),
        pytest.param("not json", id="no JSON"),
        pytest.param("", id="empty"),
        pytest.param('"' + "x" * 9_000_000 + '"', id="long"),
    ],
)  # fmt: skip
def test_json_inside_metadata_never_escapes(value: str) -> None:
    """What is too deep, too large or of a wrong type says nothing."""
    keys = ("ss_datasets", "ss_dataset_dirs", "ss_tag_frequency", "lora_adapter_metadata")
    nested = ("software", "training_info", "ot_config", "ss_network_args")
    inspection = said(dict.fromkeys((*keys, *nested), value))

    assert len(json.dumps(inspection.to_json(), allow_nan=False)) < 20_000


@pytest.mark.parametrize(
    ("key", "value", "claim"),
    [
        ("sshs_model_hash", HEX, (HEX, True, "")),
        ("sshs_model_hash", "0x" + HEX.upper(), (HEX, True, "")),
        ("modelspec.hash_sha256", "0x" + HEX, (HEX, True, "")),
        ("sshs_legacy_hash", "0123abcd", ("0123abcd", True, "")),
        ("sshs_model_hash", HEX[:32], (HEX[:32], False, "32 digits instead of 64")),
        ("sshs_model_hash", "not a hash", ("not a hash", False, "not hexadecimal")),
        ("sshs_legacy_hash", "e3b0c442", ("e3b0c442", False, "the hash of empty input")),
    ],
)
def test_a_hash_claim_is_normalised_and_judged(
    key: str, value: str, claim: tuple[str, bool, str]
) -> None:
    """Prefix and case go; what can never be valid is flagged with its reason."""
    assert said({key: value}).hash_claims == (HashClaim(key, *claim),)


def test_no_hash_is_no_claim() -> None:
    """A file that claims no digest has no hash claims."""
    assert said({"sshs_model_hash": "None"}).hash_claims == ()


def test_tags_and_data_sets_are_capped() -> None:
    """A large data set leaves its most frequent tags and a count of the others."""
    tags = {f"tag{number}": number + 1 for number in range(5000)}
    tables: dict[str, dict[str, int]] = {f"set{number}": {} for number in range(300)}
    tables["1_x"] = tags
    training = said({"ss_tag_frequency": json.dumps(tables)}).training

    assert (len(training.tags), training.tags_cut) == (50, 4950)
    assert training.tags[0] == Tag("tag4999", 5000)
    assert (len(training.datasets), training.datasets_cut) == (50, 251)


def test_a_table_beyond_all_measure_is_not_read() -> None:
    """Nobody trains on eight megabytes of tags, so nobody waits for them to be parsed."""
    tags = {"1_x": {"y": 1}, "padding": "x" * MAX_JSON_CHARS}

    assert not said({"ss_tag_frequency": json.dumps(tags)}).trigger_words.words
