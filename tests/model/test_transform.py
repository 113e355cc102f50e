"""The network's input equals its library's own preprocessing, number for number."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import timm
import torch
import torchvision
from PIL import Image

from camserve.imaging.picture import Picture
from camserve.model.architectures import published_preprocessing
from camserve.model.transform import to_input, view
from camserve.settings import Preprocessing

CHELSEA = skimage.data.chelsea()
NOISE = np.random.default_rng(0).integers(0, 256, (400, 700, 3), np.uint8)
PICTURES = {
    "landscape": CHELSEA,
    "portrait": np.ascontiguousarray(CHELSEA.transpose(1, 0, 2)),
    "coffee": skimage.data.coffee(),
    "square": skimage.data.astronaut(),
    "tiny": CHELSEA[:17, :23],
    "panorama": NOISE[:40],
    "tower": NOISE[:, :30],
    "one side as resized": NOISE[:256, :300],
    "odd": NOISE[:257, :301],
}


def reference(architecture: str):
    """The library's own transform for the name."""
    library, _, name = architecture.partition("/")
    if library == "torchvision":
        return torchvision.models.get_model_weights(name)["DEFAULT"].transforms()
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    return timm.data.create_transform(**config)


@pytest.mark.parametrize("pixels", PICTURES.values(), ids=PICTURES)
@pytest.mark.parametrize(
    "architecture",
    [
        "timm/tf_efficientnet_lite0",
        "timm/resnet50",
        "timm/vit_base_patch16_224",
        "timm/coat_lite_medium_384",  # squashed
        "torchvision/resnet50",
        "torchvision/inception_v3",
        "torchvision/efficientnet_b0",
        "torchvision/vit_b_16",
    ],
)
def test_input_equals_the_librarys(architecture, pixels):
    preprocessing = published_preprocessing(architecture)
    seen, _ = view(Picture.of(pixels), preprocessing)
    ours = to_input([seen], preprocessing, torch.device("cpu"))[0]
    assert torch.equal(ours, reference(architecture)(Image.fromarray(pixels)))


def test_the_embedded_network_has_the_constants_of_its_weights():
    assert published_preprocessing("timm/tf_efficientnet_lite0") == Preprocessing(
        resize=256, crop=224, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )


@pytest.mark.parametrize(
    "name",
    ["deepseek_vit_412m.deepseek_v4_1_flash", "volo_d4_448.sail_in1k", "vit_5b_patch16_sapiens2.fb"],
    ids=["padded to a square", "larger than the picture", "not square"],
)
def test_what_cannot_be_declared_is_not_guessed(name):
    assert timm.get_pretrained_cfg(name) is not None
    assert published_preprocessing(f"timm/{name}") is None


def test_a_batch_is_its_rows():
    preprocessing = Preprocessing(resize=40, crop=32)
    views = [view(Picture.of(pixels), preprocessing)[0] for pixels in PICTURES.values()]
    batch = to_input(views, preprocessing, torch.device("cpu"))
    alone = [to_input([one], preprocessing, torch.device("cpu"))[0] for one in views]
    assert torch.equal(batch, torch.stack(alone))


@pytest.mark.parametrize(
    ("width", "height", "box"),
    [
        (451, 300, (93.958, 18.75, 357.042, 281.25)),
        (300, 451, (18.75, 93.958, 281.25, 357.042)),
        (256, 256, (16, 16, 240, 240)),
        (2560, 2560, (160, 160, 2400, 2400)),
    ],
)
def test_the_box_is_where_the_view_lies(width, height, box):
    picture = Picture.of(np.zeros((height, width, 3), np.uint8))
    _, found = view(picture, Preprocessing(resize=256, crop=224, interpolation="bicubic"))
    assert found == pytest.approx(box, abs=5e-4)


def test_views_of_another_size_than_the_crop_are_normalised_too():
    """Mosaics are twice as wide."""
    preprocessing = Preprocessing(resize=40, crop=32)
    pixels = next(iter(PICTURES.values()))[:64, :64]
    (ours,) = to_input([np.ascontiguousarray(pixels)], preprocessing, torch.device("cpu"))
    theirs = torch.from_numpy(pixels / 255.0).permute(2, 0, 1)
    mean, std = (torch.tensor(c).view(3, 1, 1) for c in (preprocessing.mean, preprocessing.std))
    torch.testing.assert_close(ours.double(), (theirs - mean) / std, rtol=1e-5, atol=1e-5)
