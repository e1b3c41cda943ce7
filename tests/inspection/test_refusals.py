"""What is no LoRA, or half of one, is refused with a code and a reason."""

from collections.abc import Mapping

import pytest

from lora_server.errors import FileRefused
from tests.adapters import Named, adapter_tensors
from tests.inspection.support import Shape, codes, inspected, tensors_of

IMPOSTORS: Mapping[str, tuple[str, ...]] = {
    "full checkpoint": (
        "model.diffusion_model.input_blocks.0.0.weight",
        "model.diffusion_model.out.2.weight",
        "first_stage_model.encoder.conv_in.weight",
        "cond_stage_model.transformer.text_model.embeddings.position_ids",
    ),
    "full diffusion model": (
        "double_blocks.0.img_attn.qkv.weight",
        "double_blocks.0.img_attn.norm.key_norm.scale",
        "single_blocks.0.linear1.weight",
        "img_in.weight",
    ),
    "VAE": ("encoder.down.0.block.0.conv1.weight", "decoder.conv_in.weight", "quant_conv.weight"),
    "text encoder": (
        "text_model.encoder.layers.0.mlp.fc1.weight",
        "text_model.embeddings.token_embedding.weight",
        "text_projection.weight",
    ),
    "ControlNet": ("control_model.zero_convs.0.0.weight", "control_model.input_blocks.0.0.weight"),
    "upscaler": (
        "conv_first.weight",
        "body.0.rdb1.conv1.weight",
        "conv_up1.weight",
        "conv_last.bias",
    ),
    "motion module": (
        "down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight",
        "up_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight",
        "mid_block.motion_modules.0.proj_in.weight",
    ),
    "IP-Adapter": (
        "image_proj.proj.weight",
        "ip_adapter.1.to_k_ip.weight",
        "ip_adapter.1.to_v_ip.weight",
    ),
    "T2I-Adapter": (
        "adapter.body.0.in_conv.weight",
        "adapter.body.0.resnets.0.block1.weight",
        "adapter.body.1.in_conv.weight",
    ),
    "image encoder": (
        "vision_model.encoder.layers.0.mlp.fc1.weight",
        "vision_model.pre_layrnorm.bias",
        "vision_model.post_layernorm.bias",
    ),
}


def refusal(tensors: list[Named]) -> FileRefused:
    """Return how a file of these tensors is refused."""
    with pytest.raises(FileRefused) as caught:
        inspected(tensors)
    return caught.value


@pytest.mark.parametrize("kind", IMPOSTORS)
def test_an_impostor_is_named(kind: str) -> None:
    """A user who uploads the wrong file learns what it is."""
    refused = refusal([(name, "F16", (320, 320)) for name in IMPOSTORS[kind]])

    assert refused.code == "lora_not_an_adapter"
    assert kind in refused.reason


@pytest.mark.parametrize(
    "tensors",
    [
        pytest.param([("emb_params", "F32", (4, 768))], id="emb_params"),
        pytest.param([("<my-cat>", "F32", (768,))], id="token"),
        pytest.param([("clip_g", "F32", (4, 1280)), ("clip_l", "F32", (4, 768))], id="SDXL"),
    ],
)
def test_an_embedding_is_named(tensors: list[Named]) -> None:
    """Textual inversions are small, come under a LoRA's extension and are none."""
    assert "textual inversion" in refusal(tensors).reason


def test_nothing_recognisable_is_no_adapter() -> None:
    """A file of unheard-of names is refused without a guess."""
    refused = refusal([("some.thing.weight", "F32", (1000, 5)), ("else", "F32", (9000, 7))])

    assert refused.code == "lora_not_an_adapter"
    assert "no tensor has the name of an adapter's part" in refused.reason


def test_an_empty_file_is_no_adapter() -> None:
    """A header may be valid and hold nothing."""
    assert refusal([]).code == "lora_not_an_adapter"


def test_lone_alphas_are_no_adapter() -> None:
    """Activations of some networks are called alpha."""
    assert refusal([("decoder.up.0.alpha", "F32", ())]).code == "lora_not_an_adapter"


def test_a_checkpoint_with_merged_loras_is_a_checkpoint() -> None:
    """Adapter-like names do not make a whole model an adapter."""
    whole: list[Named] = [(f"model.diffusion_model.x.{n}.weight", "F16", (8, 8)) for n in range(50)]
    lora = tensors_of("lora_unet_x", {"lora_down.weight": (4, 8), "lora_up.weight": (8, 4)})

    assert "full checkpoint" in refusal(whole + lora).reason


def test_a_few_plain_tensors_beside_an_adapter_are_welcome() -> None:
    """Trainers bundle embeddings with a LoRA; that is warned of and no reason to refuse."""
    bundled: list[Named] = [("bundle_emb.cat.string_to_params.x", "F32", (4, 768))]

    assert "plain_tensors" in codes(inspected(adapter_tensors("sd1", rank=4) + bundled))


ORPHANS: tuple[Mapping[str, Shape], ...] = (
    {"lora_down.weight": (4, 8)},
    {"lora_up.weight": (8, 4), "alpha": ()},
    {"lora_A.weight": (4, 8)},
    {"lora_B.weight": (8, 4), "lora_B.bias": (8,)},
    {"lora_B.bias": (8,)},
    {"lora_down.weight": (4, 8), "lora_B.weight": (8, 4)},
    {"lora_mid.weight": (4, 4, 3, 3)},
    {"lora.down.weight": (4, 8)},
    {"hada_w1_a": (8, 4), "hada_w1_b": (4, 8), "hada_w2_a": (8, 4)},
    {"hada_t1": (4, 4, 3, 3)},
    {"lokr_w1": (4, 4)},
    {"lokr_w1": (4, 4), "lokr_w2_a": (4, 4)},
    {"lokr_t2": (4, 4, 3, 3)},
    {"a1.weight": (4, 8), "b1.weight": (4, 8)},
    {"boft_s": (64, 1)},
    {"on_input": ()},
    {"oft_R.scaled_oft": ()},
    {"oft_blocks.1": (4, 4, 4)},
)


@pytest.mark.parametrize("parts", ORPHANS)
def test_a_half_without_its_partner_is_incomplete(parts: Mapping[str, Shape]) -> None:
    """Orphans load in some programs and crash them later; whole modules beside do not help."""
    whole = tensors_of("lora_unet_y", {"lora_down.weight": (4, 8), "lora_up.weight": (8, 4)})
    refused = refusal(whole + tensors_of("lora_unet_x", parts))

    assert refused.code == "lora_incomplete"
    assert "1 modules" in refused.reason
    assert "lora_unet_x" in refused.reason


MISMATCHES: tuple[Mapping[str, Shape], ...] = (
    {"lora_down.weight": (4, 8), "lora_up.weight": (8, 5)},
    {"lora_down.weight": (0, 8), "lora_up.weight": (8, 0)},
    {"lora_down.weight": (4,), "lora_up.weight": (8, 4)},
    {"lora_down.weight": (), "lora_up.weight": ()},
    {"lora_A.weight": (4, 8), "lora_B.weight": (4, 8)},
    {
        "lora_down.weight": (4, 8, 1, 1),
        "lora_up.weight": (8, 4, 1, 1),
        "lora_mid.weight": (5, 4, 3, 3),
    },
    {"hada_w1_a": (8, 4), "hada_w1_b": (5, 8), "hada_w2_a": (8, 4), "hada_w2_b": (4, 8)},
    {"hada_w1_a": (8, 4), "hada_w1_b": (4, 8), "hada_w2_a": (8, 4), "hada_w2_b": (5, 8)},
    {"lokr_w1": (4,), "lokr_w2": (4, 4)},
    {"lokr_w1": (4, 4), "lokr_w2_a": (4, 3), "lokr_w2_b": (2, 4)},
    {"a1.weight": (4, 8), "a2.weight": (8, 4), "b1.weight": (4, 8), "b2.weight": (9, 9)},
    {"oft_blocks": (8,)},
    {"oft_blocks": (8, 8, 4)},
    {"oft_blocks.0": (4, 4, 4), "oft_blocks.1": (4, 4, 5)},
)


@pytest.mark.parametrize("parts", MISMATCHES)
def test_halves_that_do_not_fit_are_a_mismatch(parts: Mapping[str, Shape]) -> None:
    """Halves that share no rank cannot be multiplied."""
    refused = refusal(tensors_of("lora_unet_x", parts))

    assert refused.code == "lora_shape_mismatch"
    assert "lora_unet_x" in refused.reason
