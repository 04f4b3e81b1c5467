"""Plain CLIPs behind the ports: parity with the models' own pooling, sizes, batches, texts."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip import SimpleTokenizer
from open_clip.transform import image_transform
from PIL import Image
from torch.testing import assert_close

from retclip.adapters.open_clip import prompts
from retclip.adapters.open_clip.backbones import ResNetClip
from retclip.adapters.open_clip.loading import backbone_of, load_open_clip
from retclip.adapters.preprocessing import Preprocessing
from retclip.core.images import decode_picture
from retclip.ports.encoders import embed_regions
from retclip.query.similarity import class_probabilities
from tests.adapters.tiny_clip import EMBED_DIM, VISION, tiny_clip

CPU = torch.device("cpu")
FACTS = {
    "convnext": (32, ("res5",), "coverage-mean/1", 64),
    "resnet": (32, ("res5",), "coverage-attention/1", 256),
    "vit": (8, ("last-values",), "coverage-mean/1", EMBED_DIM),
}


def everything(picture):
    return torch.ones(1, *picture.shape[:2], dtype=torch.bool)


def test_the_space_says_what_was_tapped_and_how_it_is_pooled(encoder, kind):
    stride, layers, pooling, _ = FACTS[kind]
    space = encoder.space
    assert (space.stride, space.layers, space.pooling, space.dim) == (stride, layers, pooling, EMBED_DIM)
    assert (space.encoder, space.activation) == ("open_clip/tiny", "")
    assert (space.short_side, space.long_side) == (64, 160)
    assert np.allclose(space.mean, (0.48145466, 0.4578275, 0.40821073))


def test_maps_cover_pictures_of_every_size(encoder, kind, pictures):
    stride, _, _, channels = FACTS[kind]
    for picture, features in zip(pictures, encoder.encode_images(pictures), strict=True):
        scale = min(64 / min(picture.shape[:2]), 160 / max(picture.shape[:2]))
        content = [max(1, int(side * scale + 0.5)) for side in picture.shape[:2]]
        assert features.extent == tuple(side / stride for side in content)
        assert features.values.shape == (channels, *(-(-side // stride) for side in content))
        assert features.values.isfinite().all()
        keys = embed_regions(encoder, features, everything(picture))
        assert_close(keys.norm(dim=1), torch.ones(1))


def test_a_picture_does_not_see_its_companions(encoder, pictures):
    together = encoder.encode_images(pictures)
    for picture, features in zip(pictures, together, strict=True):
        (alone,) = encoder.encode_images([picture])
        assert alone.extent == features.extent
        assert_close(alone.values, features.values, atol=1e-5, rtol=1e-4)


def test_no_picture_and_no_mask_give_nothing(encoder, pictures):
    assert encoder.encode_images([]) == []
    (features,) = encoder.encode_images(pictures[:1])
    assert encoder.embed(features, torch.zeros(0, 48, 64, dtype=torch.bool)).shape == (0, EMBED_DIM)


def test_regions_of_one_pixel_have_keys_and_empty_ones_are_refused(encoder, pictures):
    (features,) = encoder.encode_images(pictures[3:4])
    masks = torch.zeros(2, 50, 91, dtype=torch.bool)
    masks[0, 0, 0] = masks[1, 49, 90] = True
    keys = embed_regions(encoder, features, masks)
    assert_close(keys.norm(dim=1), torch.ones(2))
    assert not torch.allclose(keys[0], keys[1])
    with pytest.raises(ValueError, match="an empty mask"):
        encoder.embed(features, torch.cat([masks, torch.zeros(1, 50, 91, dtype=torch.bool)]))


def test_masks_are_pooled_alone_and_their_place_matters(encoder, pictures):
    (features,) = encoder.encode_images(pictures[:1])
    halves = torch.zeros(2, 48, 64, dtype=torch.bool)
    halves[0, :, :32], halves[1, :, 32:] = True, True
    together = encoder.embed(features, halves)
    assert_close(together, torch.cat([encoder.embed(features, half[None]) for half in halves]), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def native(folders, settings, kind):
    """An encoder and a picture that it takes as it is: no scaling, no padding."""
    side = VISION[kind]["image_size"]
    settings = type(settings)(library="open_clip", model="tiny", weights="x", short_side=side, long_side=side)
    picture = np.random.default_rng(1).integers(0, 255, (side, side, 3), dtype=np.uint8)
    normalised = image_transform(side, is_train=False)(Image.fromarray(picture))
    return load_open_clip(settings, folders[kind], CPU), picture, normalised[None]


@torch.no_grad()
def test_a_convnexts_whole_picture_is_its_own_embedding(folders, settings):
    """Mean, norm, head: the mask that covers everything is CLIP's own pooling."""
    encoder, picture, normalised = native(folders, settings, "convnext")
    (features,) = encoder.encode_images([picture])
    expected = tiny_clip("convnext").encode_image(normalised)
    assert_close(encoder.embed(features, everything(picture)), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_resnets_whole_picture_is_its_own_pooling_without_the_mean_among_the_keys(folders, settings):
    """CLIP attends from mean + position 0 to that token and all cells; FC-CLIP's rule, and ours, to the cells alone.

    So the library's own attention with the first key left out must give our vector, and with it CLIP's.
    """
    encoder, picture, normalised = native(folders, settings, "resnet")
    (features,) = encoder.encode_images([picture])
    clip = tiny_clip("resnet")
    pool = clip.visual.attnpool
    cells = ResNetClip(clip)(normalised).flatten(2).permute(2, 0, 1)
    tokens = torch.cat([cells.mean(0, keepdim=True), cells]) + pool.positional_embedding[:, None]

    def attend(keys):
        return F.multi_head_attention_forward(
            query=tokens[:1],
            key=keys,
            value=keys,
            embed_dim_to_check=tokens.shape[-1],
            num_heads=pool.num_heads,
            in_proj_weight=None,
            in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
            bias_k=None,
            bias_v=None,
            add_zero_attn=False,
            dropout_p=0.0,
            out_proj_weight=pool.c_proj.weight,
            out_proj_bias=pool.c_proj.bias,
            use_separate_proj_weight=True,
            q_proj_weight=pool.q_proj.weight,
            k_proj_weight=pool.k_proj.weight,
            v_proj_weight=pool.v_proj.weight,
        )[0][0]

    assert_close(attend(tokens), clip.encode_image(normalised), atol=1e-5, rtol=1e-4)
    assert_close(encoder.embed(features, everything(picture)), attend(tokens[1:]), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(attend(tokens), attend(tokens[1:]), atol=1e-3)


@torch.no_grad()
def test_a_vits_key_is_the_mean_of_its_patches(folders, settings):
    encoder, picture, normalised = native(folders, settings, "vit")
    (features,) = encoder.encode_images([picture])
    dense = backbone_of(tiny_clip("vit"), "tiny")(normalised)[0]
    assert_close(features.values, dense, atol=1e-5, rtol=1e-4)
    mask = torch.zeros(1, 32, 32, dtype=torch.bool)
    mask[0, :8, :16] = mask[0, 8:16, :4] = True  # two patches and half of a third
    expected = (dense[:, 0, 0] + dense[:, 0, 1] + dense[:, 1, 0] / 2) / 2.5
    assert_close(encoder.embed(features, mask)[0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(224, 224), (300, 224), (448, 448), (100, 100)])
def test_pictures_are_prepared_as_open_clip_prepares_them(size):
    """Where nothing needs cropping or padding the two agree to the bit."""
    picture = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    transform = image_transform(224, is_train=False)
    mean, std = transform.transforms[-1].mean, transform.transforms[-1].std
    ours = Preprocessing(224, 10_000, tuple(mean), tuple(std), 1, Image.Resampling.BICUBIC)(picture)
    top = (ours.content[0] - 224) // 2
    assert_close(ours.pixels[:, top : top + 224], transform(Image.fromarray(picture)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA"])
def test_pictures_of_every_colour_mode_arrive_as_rgb(encoder, mode, tmp_path):
    path = tmp_path / "picture.png"
    Image.effect_mandelbrot((40, 30), (-2, -1, 1, 1), 20).convert("RGB").convert(mode).save(path)
    picture = decode_picture(path.read_bytes(), "picture")
    (features,) = encoder.encode_images([picture.pixels])
    assert embed_regions(encoder, features, everything(picture.pixels)).isfinite().all()


@torch.no_grad()
def test_names_become_unit_rows_through_open_clips_own_tower(encoder, kind):
    rows = encoder.encode_names(["cat", "traffic light", "cat"])
    assert torch.equal(rows[0], rows[2])
    assert_close(rows.norm(dim=1), torch.ones(3))
    own = tiny_clip(kind).encode_text(SimpleTokenizer()(prompts.prompts(["cat", "traffic light"])))
    assert_close(rows[:2], prompts.average_prompts(own), atol=1e-5, rtol=1e-4)
    assert encoder.logit_scale == pytest.approx(1 / 0.07, rel=1e-4)


def test_keys_and_texts_meet_in_one_space(encoder, pictures):
    (features,) = encoder.encode_images(pictures[:1])
    keys = embed_regions(encoder, features, everything(pictures[0]))
    texts = encoder.encode_names(["cat", "dog", "sky"])
    scores = class_probabilities(keys, texts, [2, 1], encoder.logit_scale)
    assert scores.shape == (1, 2)
    assert_close(scores.sum(1), torch.ones(1))


def test_the_text_rows_outlive_the_process(folders, settings, kind, home, monkeypatch):
    first = load_open_clip(settings, folders[kind], CPU).encode_names(["cat", "dog"])
    (file,) = (home / "cache" / "text").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(prompts, "encode_names", lambda *_: pytest.fail("encoded again"))
        again = load_open_clip(settings, folders[kind], CPU)
        assert torch.equal(again.encode_names(["dog", "cat"]), first.flip(0))
    file.write_bytes(b"\x00" * 100)
    assert torch.equal(load_open_clip(settings, folders[kind], CPU).encode_names(["dog", "cat"]), first.flip(0))
    assert file.stat().st_size > 100
