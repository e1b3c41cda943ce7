"""Adapter families, spellings and targets, module by module and in sum."""

from collections.abc import Mapping

import pytest

from lora_server.inspection.record import Spread, TextEncoder
from tests.adapters import adapter_tensors
from tests.inspection.support import Shape, inspected, tensors_of

DOWN_UP: Mapping[str, Shape] = {"lora_down.weight": (4, 32), "lora_up.weight": (64, 4)}
A_B: Mapping[str, Shape] = {"lora_A.weight": (4, 32), "lora_B.weight": (64, 4)}
CONV: Mapping[str, Shape] = {"lora_down.weight": (4, 32, 3, 3), "lora_up.weight": (64, 4, 1, 1)}
HADA: Mapping[str, Shape] = {
    "hada_w1_a": (64, 4),
    "hada_w1_b": (4, 32),
    "hada_w2_a": (64, 4),
    "hada_w2_b": (4, 32),
}
TUCKER_HADA: Mapping[str, Shape] = {
    "hada_t1": (4, 4, 3, 3),
    "hada_w1_a": (4, 64),
    "hada_w1_b": (4, 32),
    "hada_t2": (4, 4, 3, 3),
    "hada_w2_a": (4, 64),
    "hada_w2_b": (4, 32),
}
GLORA: Mapping[str, Shape] = {
    "a1.weight": (4, 32),
    "a2.weight": (32, 4),
    "b1.weight": (4, 32),
    "b2.weight": (64, 4),
}
GLORA_OTHER: Mapping[str, Shape] = {
    "a1.weight": (32, 4),
    "a2.weight": (4, 32),
    "b1.weight": (64, 4),
    "b2.weight": (4, 32),
}

FAMILIES = (
    ("LoRA", DOWN_UP, 4),
    ("LoRA", A_B, 4),
    ("LoRA", {"lora_A": (4, 32), "lora_B": (64, 4)}, 4),
    ("LoRA", {"lora_A.default.weight": (4, 32), "lora_B.default.weight": (64, 4)}, 4),
    ("LoRA", {"lora_embedding_A": (4, 32), "lora_embedding_B": (64, 4)}, 4),
    ("LoRA", {"lora.down.weight": (4, 32), "lora.up.weight": (64, 4)}, 4),
    ("LoRA", {**A_B, "lora_B.bias": (64,)}, 4),
    ("LoCon", CONV, 4),
    (
        "LoCon",
        {
            "lora_down.weight": (4, 32, 1, 1),
            "lora_up.weight": (64, 4, 1, 1),
            "lora_mid.weight": (4, 4, 3, 3),
        },
        4,
    ),
    ("DoRA", {**DOWN_UP, "dora_scale": (64, 1)}, 4),
    ("DoRA", {**A_B, "lora_magnitude_vector": (64,)}, 4),
    ("DoRA", {**A_B, "lora_magnitude_vector.weight": (64,)}, 4),
    ("DoRA", {**A_B, "lora_magnitude_vector.default.weight": (64,)}, 4),
    ("DoRA", {**A_B, "magnitude": (64,)}, 4),
    ("LoHa", HADA, 4),
    ("LoHa", TUCKER_HADA, 4),
    ("LoHa", {**HADA, "dora_scale": (64, 1)}, 4),
    ("LoKr", {"lokr_w1": (4, 4), "lokr_w2": (16, 8)}, None),
    ("LoKr", {"lokr_w1": (4, 4), "lokr_w2_a": (16, 2), "lokr_w2_b": (2, 8)}, 2),
    ("LoKr", {"lokr_w1_a": (4, 3), "lokr_w1_b": (3, 4), "lokr_w2": (16, 8)}, 3),
    (
        "LoKr",
        {
            "lokr_w1": (4, 4),
            "lokr_t2": (2, 2, 3, 3),
            "lokr_w2_a": (2, 16),
            "lokr_w2_b": (2, 8),
        },
        2,
    ),
    ("GLoRA", GLORA, 4),
    ("GLoRA", GLORA_OTHER, 4),
    ("diag-OFT", {"oft_blocks": (8, 8, 8)}, None),
    ("diag-OFT", {"oft_blocks": (8, 8, 8), "rescale": (64, 1)}, None),
    ("BOFT", {"oft_blocks": (3, 8, 8, 8)}, None),
    ("diag-OFT", {"oft_blocks.0": (4, 16, 16)}, None),
    ("diag-OFT", {f"oft_blocks.{split}": (4, 4, 4) for split in range(3)}, None),
    ("PEFT OFT", {"oft_R.weight": (4, 28)}, None),
    ("PEFT OFT", {"oft_R.weight": (4, 28), "oft_R.scaled_oft": ()}, None),
    ("PEFT OFT", {"oft_R.default.weight": (4, 28)}, None),
    ("PEFT BOFT", {"boft_R": (1, 4, 8, 8), "boft_s": (64, 1)}, None),
    ("IA3", {"weight": (64,), "on_input": ()}, None),
    ("IA3", {"ia3_l": (1, 64)}, None),
    ("full", {"diff": (64, 32), "diff_b": (64,)}, None),
    ("full", {"set_weight": (64, 32)}, None),
    ("norm", {"w_norm": (64,), "b_norm": (64,)}, None),
    ("unknown", {"vera_lambda_b": (64,), "vera_lambda_d": (4,)}, None),
    ("unknown", {"fourierft_spectrum": (64,)}, None),
    ("unknown", {"lora_gate.weight": (64, 4)}, None),
)


@pytest.mark.parametrize(("family", "parts", "rank"), FAMILIES)
def test_a_family_is_told_from_its_parts(
    family: str, parts: Mapping[str, Shape], rank: int | None
) -> None:
    """Suffixes tell the family, shapes the rank."""
    adapter = inspected(tensors_of("diffusion_model.x.to_q", parts)).adapter

    assert (family, {family: 1}) == (adapter.family, adapter.families)
    assert adapter.module_count == 1
    assert adapter.rank == (None if rank is None else Spread(rank, rank, rank))


@pytest.mark.parametrize(
    ("path", "parts", "spelling"),
    [
        ("lora_unet_x", DOWN_UP, "kohya"),
        ("lora_te1_x", DOWN_UP, "kohya"),
        ("diffusion_model.x", A_B, "ai-toolkit"),
        ("transformer.x", A_B, "diffusers"),
        ("unet.x", A_B, "diffusers"),
        ("base_model.model.x", A_B, "PEFT"),
        ("x", A_B, "PEFT"),
        ("lora_transformer_x", DOWN_UP, "OneTrainer"),
        ("lycoris_x", DOWN_UP, "LyCORIS"),
        ("lora_unet_x", HADA, "LyCORIS"),
        ("lora_unet_x", {"oft_blocks.0": (4, 16, 16)}, "kohya"),
        ("x", {"lora_A": (4, 32), "lora_B": (64, 4)}, "mochi"),
        (
            "unet.x.attn1.processor",
            {"to_q_lora.down.weight": (4, 32), "to_q_lora.up.weight": (64, 4)},
            "diffusers attention processor",
        ),
        (
            "unet.x.to_q",
            {"lora.down.weight": (4, 32), "lora.up.weight": (64, 4)},
            "diffusers lora layer",
        ),
        (
            "text_encoder.x.q_proj",
            {"lora_linear_layer.down.weight": (4, 32), "lora_linear_layer.up.weight": (64, 4)},
            "diffusers linear layer",
        ),
        (
            "double_blocks.0.processor",
            {"qkv_lora1.down.weight": (4, 3072), "qkv_lora1.up.weight": (9216, 4)},
            "XLabs",
        ),
    ],
)
def test_a_spelling_is_named(path: str, parts: Mapping[str, Shape], spelling: str) -> None:
    """Prefix and suffixes together tell the trainer."""
    assert inspected(tensors_of(path, parts)).adapter.spellings == {spelling: 1}


def test_both_streams_of_xlabs_are_modules() -> None:
    """lora1 and lora2 change two layers and not one."""
    parts = {f"qkv_lora{n}.{half}.weight": shape for n in (1, 2) for half, shape in
             {"down": (4, 3072), "up": (9216, 4)}.items()}  # fmt: skip
    inspection = inspected(tensors_of("double_blocks.0.processor", parts))

    assert inspection.adapter.module_count == 2
    assert inspection.base_model.name == "Flux.1"


def test_a_control_lora_is_recognised() -> None:
    """Flux Control LoRAs have no prefix, biases, and the scales of norms."""
    inspection = inspected(
        [
            *tensors_of("img_in", {"lora_A.weight": (8, 128), "lora_B.weight": (3072, 8)}),
            *tensors_of("double_blocks.0.img_attn.norm.key_norm", {"scale": (128,)}),
            *tensors_of(
                "double_blocks.0.img_mod.lin",
                {"lora_A.weight": (8, 3072), "lora_B.weight": (64, 8), "lora_B.bias": (64,)},
            ),
        ]
    )

    assert inspection.adapter.spellings == {"BFL control": 3}
    assert inspection.adapter.family == "LoRA"
    assert inspection.base_model.name == "Flux.1"


@pytest.mark.parametrize(
    ("others", "family"),
    [
        pytest.param({"lora_unet_a": HADA}, "mixed", id="LoHa"),
        pytest.param({"lora_unet_a": CONV}, "LoCon", id="convolutions"),
        pytest.param({"lora_unet_a": {"w_norm": (8,)}}, "LoRA", id="norms"),
        pytest.param({"lora_unet_a": {"diff_b": (8,)}}, "LoRA", id="biases"),
        pytest.param({"lora_unet_a": {**DOWN_UP, "dora_scale": (64, 1)}}, "DoRA", id="DoRA"),
    ],
)
def test_families_are_summed_up(others: Mapping[str, Mapping[str, Shape]], family: str) -> None:
    """Norms and biases accompany a family, convolutions make it LoCon, others mix it."""
    tensors = tensors_of("lora_unet_b", DOWN_UP)
    for path, parts in others.items():
        tensors += tensors_of(path, parts)
    adapter = inspected(tensors).adapter

    assert adapter.family == family
    assert adapter.families["LoRA"] == 1
    assert sum(adapter.families.values()) == adapter.module_count == 2


@pytest.mark.parametrize(
    ("layout", "encoders"),
    [
        ("sdxl", ()),
        ("sdxl-te", (TextEncoder("te1", "clip", 72), TextEncoder("te2", "clip", 192))),
        ("flux-te", (TextEncoder("te1", "clip", 72), TextEncoder("te2", "t5", 96))),
        ("sd1-te", (TextEncoder("te", "clip", 72),)),
    ],
)
def test_text_encoders_are_told_apart(layout: str, encoders: tuple[TextEncoder, ...]) -> None:
    """te2 is CLIP in SDXL and T5 in Flux."""
    assert inspected(adapter_tensors(layout)).adapter.text_encoders == encoders


def test_targets_are_counted_by_kind() -> None:
    """An SDXL adapter of all linear layers, by kind."""
    adapter = inspected(adapter_tensors("sdxl")).adapter

    assert adapter.targets == {
        "attention": 280,
        "cross attention": 280,
        "feed-forward": 140,
        "projection": 22,
    }


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("lora_unet_down_blocks_0_resnets_0_conv1", "convolution"),
        ("lora_unet_input_blocks_1_0_in_layers_2", "convolution"),
        ("lora_unet_double_blocks_0_img_mod_lin", "modulation"),
        ("lora_unet_double_blocks_0_img_attn_qkv", "attention"),
        ("lora_unet_single_blocks_0_linear1", "feed-forward"),
        ("diffusion_model.blocks.0.cross_attn.q", "cross attention"),
        ("diffusion_model.blocks.0.ffn.0", "feed-forward"),
        ("diffusion_model.time_embedding.0", "embedding"),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1", "text encoder feed-forward"),
        ("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", "text encoder attention"),
        ("diffusion_model.something", "other"),
    ],
)
def test_a_layer_has_a_kind(path: str, kind: str) -> None:
    """Layer names of different architectures fall into the same few kinds."""
    assert inspected(tensors_of(path, DOWN_UP)).adapter.targets == {kind: 1}
