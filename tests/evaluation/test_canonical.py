"""Whether the spellings of one module meet in one name."""

import pytest

from lora_server.evaluation.weights.canonical import Piece, pieces
from tests.evaluation.updates import spelled
from tests.layouts import layers_of

STYLE_GROUPS = (
    ("sdxl", ("kohya", "diffusers-unet", "peft", "lycoris", "bare")),
    ("sdxl-te", ("kohya", "diffusers-unet")),
    ("flux", ("kohya", "ai-toolkit", "diffusers", "onetrainer", "peft-transformer")),
    ("wan-14b", ("kohya", "kohya__", "ai-toolkit", "bare")),
)


def keys(base: str, style: str) -> list[tuple[Piece, ...]]:
    """Return the pieces of all layers of a base in one spelling."""
    return [pieces(spelled(la, style), (la.outer, la.inner)) for la in layers_of(base)]


@pytest.mark.parametrize(("base", "styles"), STYLE_GROUPS)
def test_spellings_meet(base: str, styles: tuple[str, ...]) -> None:
    """A layer has one name, whichever trainer's prefix and separators it comes with."""
    first, *others = (keys(base, style) for style in styles)

    assert all(other == first for other in others)


@pytest.mark.parametrize("base", ["sd1", "sdxl", "sdxl-te", "flux", "flux-diffusers", "sd3"])
def test_layers_stay_apart(base: str) -> None:
    """No two layers of one base get one name."""
    found = [piece.key for cut in keys(base, "kohya") for piece in cut]

    assert len(set(found)) == len(found)


def test_native_and_diffusers_names_of_a_unet_meet() -> None:
    """SGM's and diffusers' names of SDXL's blocks are the same set."""
    native, diffusers = keys("sdxl", "kohya"), keys("sdxl-diffusers", "diffusers-unet")

    assert set(native) == set(diffusers)


def test_native_and_diffusers_names_of_flux_meet() -> None:
    """What diffusers adapts of Flux is found among the pieces of the fused layers."""
    native = {piece.key: piece for cut in keys("flux", "kohya") for piece in cut}
    diffusers = [piece for cut in keys("flux-diffusers", "diffusers") for piece in cut]

    assert all(piece.key in native for piece in diffusers)
    assert all(
        piece.end - piece.begin == native[piece.key].end - native[piece.key].begin
        for piece in diffusers
    )


@pytest.mark.parametrize(
    ("native", "diffusers"),
    [
        ("input_blocks_0_0", "conv_in"),
        ("input_blocks_3_0_op", "down_blocks_0_downsamplers_0_conv"),
        ("input_blocks_4_0_skip_connection", "down_blocks_1_resnets_0_conv_shortcut"),
        ("middle_block_2_in_layers_2", "mid_block_resnets_1_conv1"),
        ("output_blocks_2_2_conv", "up_blocks_0_upsamplers_0_conv"),
        ("output_blocks_5_1_proj_in", "up_blocks_1_attentions_2_proj_in"),
        ("output_blocks_8_0_emb_layers_1", "up_blocks_2_resnets_2_time_emb_proj"),
        ("time_embed_2", "time_embedding_linear_2"),
    ],
)
def test_convolutions_of_a_unet_meet(native: str, diffusers: str) -> None:
    """LoCon's layers have both names, too."""
    both = [pieces(f"lora_unet_{name}", (8, 8)) for name in (native, diffusers)]

    assert both[0] == both[1]


def test_a_fused_layer_is_cut_into_all_its_rows() -> None:
    """Flux's linear1 is three projections and a feed-forward, in this order."""
    found = pieces("lora_unet_single_blocks_7_linear1", (21504, 3072))

    assert [(piece.begin, piece.end) for piece in found] == [
        (0, 3072),
        (3072, 6144),
        (6144, 9216),
        (9216, 21504),
    ]
    assert found[3].key.endswith("single_transformer_blocks_7_proj_mlp")


@pytest.mark.parametrize("shape", [(10, 64), (64, 64), (0, 0)])
def test_a_fused_layer_of_odd_widths_stays_whole(shape: tuple[int, int]) -> None:
    """Widths that do not fit the fusion leave the module in one piece."""
    assert [p[1:] for p in pieces("single_blocks.0.linear1", shape)] == [(0, shape[0])]


def test_both_denoisers_of_one_file_stay_apart() -> None:
    """Wan 2.2 in one file of diffusers has every layer twice."""
    first, second = (
        pieces(f"{name}.blocks.0.attn1.to_q", (8, 8)) for name in ("transformer", "transformer_2")
    )

    assert first != second


@pytest.mark.parametrize("path", ["", "a#_#.0", "x" * 500, "_#" * 40, "lora_unet_", "0.0.0"])
def test_odd_names_are_their_own(path: str) -> None:
    """A name that no trainer writes makes one piece of the whole module."""
    assert [piece[1:] for piece in pieces(path, (5, 3))] == [(0, 5)]
