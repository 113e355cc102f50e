"""Every option, seen through HTTP."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from service import CAT, COFFEE, EGYPTIAN_CAT, TABBY, TIGER_CAT, grid, pixels

pytestmark = pytest.mark.live


def explained_ids(reply):
    return [entry["class_id"] for entry in reply.json["explanation"]["classes"]]


@pytest.mark.parametrize(
    ("classes", "ids"),
    [
        ("top:3", [EGYPTIAN_CAT, TIGER_CAT, TABBY]),
        ("281,Egyptian cat", [TABBY, EGYPTIAN_CAT]),
        ("label:tabby", [TABBY]),
        ("TABBY,281,tabby", [TABBY]),
        ('[386, "tusker", "Indian elephant"]', [386, 101, 385]),
        ("386,tusker,Indian elephant", [386, 101, 385]),
    ],
)
def test_classes(service, classes, ids):
    assert explained_ids(service.ask("", params={"explain": "true", "classes": classes})) == ids


def test_topk(service):
    assert len(service.ask("?topk=20").json["predictions"]) == 20


def test_exact_maps_complete_to_the_logit(service):
    for contrast in ("", "&contrast=runner_up", "&contrast=tabby"):
        entry = service.ask(f"?explain=true&maps=grid&classes=285,282{contrast}").explained
        ledger = entry["ledger"]
        assert abs(grid(entry).mean() + ledger["bias"] - ledger["logit"]) <= 1e-4 * max(1, abs(ledger["logit"]))
        assert ledger["error"] <= 1e-4 * max(1, abs(ledger["logit"]))


def test_contrast_is_the_difference_of_two_maps(service):
    one, other = (grid(service.ask(f"?explain=true&maps=grid&classes={c}").explained) for c in (285, 281))
    entry = service.ask("?explain=true&maps=grid&classes=285&contrast=281").explained
    np.testing.assert_allclose(grid(entry), one - other, atol=1e-4)
    assert entry["contrast"] == {"class_id": TABBY, "label": "tabby"}


def test_runner_up_is_the_highest_other_class(service):
    classes = service.ask("?explain=true&classes=285,282&contrast=runner_up").json["explanation"]["classes"]
    assert [entry["contrast"]["class_id"] for entry in classes] == [TIGER_CAT, EGYPTIAN_CAT]


@pytest.mark.parametrize(
    ("method", "layer", "exact"),
    [
        ("cam", "bn2", True),
        ("gradcam", "bn2", True),
        ("hirescam", "bn2", True),
        ("layercam", "bn2", False),
        ("gradcam", "blocks.4.0", False),
        ("hirescam", "blocks.4.0", False),
        ("layercam", "blocks.2.1", False),
    ],
)
def test_method_and_layer(service, method, layer, exact):
    explanation = service.ask(f"?explain=true&maps=grid&method={method}&layer={layer}").json["explanation"]
    assert (explanation["method"], explanation["layer"], explanation["exact"]) == (method, layer, exact)
    assert explanation["status"] == "ok"
    assert ("ledger" in explanation["classes"][0]) == exact
    assert grid(explanation["classes"][0]).any()


def test_polarity(service):
    heat = {}
    for polarity in ("positive", "negative", "both"):
        path = f"?explain=true&maps=grid,heatmap,overlay&contrast=runner_up&polarity={polarity}"
        entry = service.ask(path).explained
        heat[polarity] = pixels(entry["heatmap"]).astype(int)
        signed = grid(entry)
    assert signed.min() < 0 < signed.max()
    # Where one side has its peak the other has nothing, and both are on their own side of grey 128.
    for_it, against_it = (np.unravel_index(heat[side].argmax(), (300, 451)) for side in ("positive", "negative"))
    assert heat["negative"][for_it] == heat["positive"][against_it] == 0
    assert heat["both"][against_it] < 128 < heat["both"][for_it]
    assert 127 - abs(heat["both"] - 128).max() <= 2
    assert heat["both"][0, 0] == 128  # outside the model's box


def test_maps(service):
    entry = service.ask('?explain=true&maps=["grid","regions"]').explained
    assert {"grid", "regions"} <= entry.keys()
    assert not {"overlay", "heatmap"} & entry.keys()


@pytest.mark.parametrize("image_format", ["jpeg", "png", "webp"])
def test_image_format_and_max_side(service, image_format):
    entry = service.ask(f"?explain=true&image_format={image_format}&max_side=200").explained
    assert entry["overlay"]["mime"] == f"image/{image_format}"
    assert pixels(entry["overlay"]).shape == (133, 200, 3)


def test_the_overlay_is_the_plain_picture_outside_the_box_and_coloured_inside(service):
    original = np.asarray(Image.open(io.BytesIO(CAT)).convert("RGB")).astype(int)
    reply = service.ask("?explain=true&image_format=png&opacity=0.5")
    drawn = pixels(reply.explained["overlay"]).astype(int)
    assert reply.json["image"]["model_box"] == [93.958, 18.75, 357.042, 281.25]
    outside = np.ones(drawn.shape[:2], bool)
    outside[18:282, 93:358] = False
    assert (drawn[outside] == original[outside]).all()
    assert abs(drawn - original)[19:281, 94:357].mean() > 20


def test_opacity_zero_is_the_picture(service):
    original = np.asarray(Image.open(io.BytesIO(CAT)).convert("RGB"))
    drawn = pixels(service.ask("?explain=true&image_format=png&opacity=0").explained["overlay"])
    assert (drawn == original).all()


def test_colormap(service):
    drawn = {
        name: pixels(service.ask(f"?explain=true&image_format=png&opacity=1&colormap={name}").explained["overlay"])
        for name in ("jet", "viridis")
    }
    assert (drawn["jet"][150, 200] != drawn["viridis"][150, 200]).any()


def test_crop_predicts_and_explains_that_part_only(service):
    whole = service.ask("?explain=true")
    part = service.ask("?explain=true&maps=overlay,regions&crop=120,40,200,220")
    image = part.json["image"]
    assert image["crop"] == [120, 40, 320, 260]
    x0, y0, x1, y1 = image["model_box"]
    assert 120 <= x0 < x1 <= 320
    assert 40 <= y0 < y1 <= 260
    assert part.json["predictions"] != whole.json["predictions"]
    assert pixels(part.explained["overlay"]).shape == (300, 451, 3)
    for region in part.explained["regions"]:
        assert x0 <= region["box"][0] < region["box"][2] <= x1 + 1e-3


def test_auto_follows_the_models_rule(service):
    # config/model-config.yaml explains where the two likeliest classes are within 0.2.
    cat = service.ask("?explain=auto").json
    gap = cat["predictions"][0]["probability"] - cat["predictions"][1]["probability"]
    assert gap < 0.2
    assert cat["explanation"]["trigger"] == "margin_below"
    crop = service.ask("?explain=auto&topk=2&crop=0,0,60,60").json
    gap = crop["predictions"][0]["probability"] - crop["predictions"][1]["probability"]
    assert crop["explanation"]["status"] == ("ok" if gap < 0.2 else "not_needed")


def test_explain_options_without_explain_are_checked_and_ignored(service):
    assert "explanation" not in service.ask("?method=layercam&colormap=viridis").json
    assert service.ask("?method=nonsense").error[0] == 400


def test_timing_and_identity(service):
    reply = service.ask("?explain=true")
    answer = reply.json
    assert answer["request_id"] == reply.headers["x-request-id"]
    assert answer["model"] == {
        "name": "classifier",
        "version": "1.0",
        "architecture": "timm/tf_efficientnet_lite0",
    }
    assert answer["timing_ms"]["forward"] > 0
    assert answer["timing_ms"]["queue"] is not None
    assert service.ask(native=True).json["timing_ms"]["queue"] is None


METHODS = [
    "gradcam++",
    "xgradcam",
    "eigencam",
    "eigengradcam",
    "saliency",
    "guided_backprop",
    "guided_gradcam",
    "deconvnet",
]


@pytest.mark.parametrize("method", METHODS)
def test_every_other_method_answers(service, method):
    reply = service.ask("", params={"explain": "true", "maps": "overlay,grid", "method": method})
    explanation = reply.json["explanation"]
    assert (explanation["status"], explanation["method"]) == ("ok", method)
    on_input = method in ("saliency", "guided_backprop", "guided_gradcam", "deconvnet")
    assert explanation["grid_shape"] == ([224, 224] if on_input else [7, 7])
    assert reply.json["predictions"] == service.ask().json["predictions"]


def test_channels_come_with_their_share_and_their_part(service):
    entry = service.ask("?explain=true&maps=grid&channels=16").explained
    shares = [channel["share"] for channel in entry["channels"]]
    assert len(shares) == 16
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) < 1
    assert all(grid(channel).shape == (7, 7) for channel in entry["channels"])


def test_quality_and_verify(service):
    entry = service.ask("?explain=true&verify=true", COFFEE).explained
    assert entry["quality"]["flags"] == []
    assert entry["quality"]["border_share"] < 0.5
    measured = entry["verify"]
    assert measured["probability"] == pytest.approx(
        service.ask(data=COFFEE).json["predictions"][0]["probability"], abs=1e-4
    )
    assert measured["without_top"] < min(measured["without_random"])
    assert "not_class_discriminative" in service.ask("?explain=true&method=eigencam").explained["quality"]["flags"]


def test_an_answer_that_would_be_too_large_loses_its_largest_parts(service):
    # 20 classes with 16 channels of 112 x 112 cells each would be 21 MB; TorchServe kills a worker beyond 8 MB.
    query = "?explain=true&maps=grid,overlay&classes=top:20&channels=16&method=hirescam&layer=bn1"
    reply = service.ask(query)
    assert len(reply.body) <= 4_000_000
    explanation = reply.json["explanation"]
    assert explanation["status"] == "partial"
    dropped = [entry for entry in explanation["classes"] if entry["status"] == "failed"]
    assert dropped
    assert all(entry["reason"].startswith("Dropped channels: the answer would pass 4000000 bytes") for entry in dropped)
    assert all("overlay" in entry for entry in dropped)
