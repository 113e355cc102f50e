"""The whole path in-process: every row gets its own answer, and an explanation never costs a prediction."""

from __future__ import annotations

import base64
import io
import json
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image

import camserve
import toynets
from camserve.cam import engine
from camserve.cam.methods.base import Method
from camserve.errors import NetworkLost, SetupError
from camserve.pipeline import Pipeline
from camserve.records import Answer, Row
from camserve.settings import Settings
from pictures import cat, coffee, encoded, noise, quarters
from toynets import LABELS, good, grid, loaded, parsed, pixels, row

SCHEMA = jsonschema.Draft202012Validator(
    json.loads((Path(camserve.__file__).parent / "schema.json").read_text(encoding="utf-8"))
)
STAGES = ["queue", "decode", "preprocess", "forward", "explain", "render", "encode"]


def valid(answer: Answer) -> dict:
    """A good answer that the schema allows."""
    found = good(answer)
    SCHEMA.validate(found)
    return found


def fault(answer: Answer) -> tuple[int, str, str]:
    """Status, type and message, which agree with each other."""
    found = parsed(answer)
    SCHEMA.validate(found)
    assert found["code"] == answer.status
    return answer.status, found["type"], found["message"]


def one(pipeline: Pipeline, image: bytes | None = None, headers: dict | None = None, **options: object) -> dict:
    return valid(pipeline.answer([row(image, headers, **options)])[0])


def explained(pipeline: Pipeline, image: bytes | None = None, **options: object) -> dict:
    """The first explained class."""
    found = one(pipeline, image, explain="true", **options)["explanation"]
    assert found["status"] == "ok"
    return found["classes"][0]


def logits(answer: Answer) -> dict[int, float]:
    return {found["class_id"]: found["logit"] for found in valid(answer)["predictions"]}


def at_cells(side: int, left: float) -> tuple[np.ndarray, ...]:
    """The pixels in the middle of the 8 x 8 cells of a box that begins at (left, 0)."""
    middles = (np.arange(8) + 0.5) * side / 8
    return np.ix_(middles.astype(int), (left + middles).astype(int))


# --- one batch ----------------------------------------------------------------------------------------------


def test_every_row_of_a_batch_gets_its_own_answer(seeded):
    more = {"explain": "true", "classes": "top:2", "maps": "overlay,heatmap,grid,regions"}
    rows = [
        row(b"this is no picture"),
        row(cat()),
        row(cat()[:5_000]),
        row(coffee(), **more),
        row(cat(), explian="true"),
        row(cat(), explain="true", layer="early.0", maps="grid", crop="50,20,200,180"),
        row(cat(), crop="400,0,100,100"),
        row(b""),
    ]
    answers = seeded.answer(rows)
    assert [answer.status for answer in answers] == [415, 200, 422, 200, 400, 200, 400, 400]
    assert [fault(answers[k])[1] for k in (0, 2, 4, 6, 7)] == [
        "UnsupportedFormat",
        "Undecodable",
        "InvalidOption",
        "InvalidOption",
        "MissingImage",
    ]
    assert fault(answers[6])[2] == (
        "Option 'crop': expected a box inside the upright 451x300 picture, got 400,0,100,100."
    )
    for k in (1, 3, 5):
        together, alone = valid(answers[k]), valid(seeded.answer([rows[k]])[0])
        assert [p["class_id"] for p in together["predictions"]] == [p["class_id"] for p in alone["predictions"]]
        for ours, theirs in zip(together["predictions"], alone["predictions"], strict=True):
            assert ours["probability"] == pytest.approx(theirs["probability"], abs=1e-4)
        assert together["image"] == alone["image"]
        assert (together["batch_size"], alone["batch_size"]) == (7, 1)
        for mine, own in zip(
            together.get("explanation", {}).get("classes", []),
            alone.get("explanation", {}).get("classes", []),
            strict=True,
        ):
            np.testing.assert_allclose(grid(mine), grid(own), atol=1e-3)
            assert mine.get("regions") == own.get("regions")
    assert len(valid(answers[3])["explanation"]["classes"]) == 2


@pytest.mark.parametrize("layer", ["features", "features.1", "early.0"])
def test_explaining_a_row_changes_no_logit_of_the_batch(seeded, layer):
    pictures = [cat(), coffee(), encoded(noise(80, 90))]
    plain = seeded.answer([row(image, topk=10) for image in pictures])
    mixed = seeded.answer(
        [
            row(pictures[0], topk=10),
            row(pictures[1], topk=10, explain="true", layer=layer, classes="top:3", polarity="both"),
            row(pictures[2], topk=10, explain="true", method="layercam", layer="early.1"),
        ]
    )
    assert [logits(answer) for answer in mixed] == [logits(answer) for answer in plain]


def test_predictions_are_the_networks_own(seeded):
    """Against the same picture put through the network by hand."""
    resized = Image.open(io.BytesIO(cat())).convert("RGB").resize((96, 64), Image.Resampling.BILINEAR)
    x = torch.from_numpy(np.asarray(resized.crop((16, 0, 80, 64))).astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = seeded.engine.network(x)[0]
    found = one(seeded, topk=10)["predictions"]
    assert [p["class_id"] for p in found] == expected.argsort(descending=True).tolist()
    assert [p["logit"] for p in found] == pytest.approx(expected.sort(descending=True).values.tolist(), abs=1e-4)
    assert sum(p["probability"] for p in found) == pytest.approx(1, abs=1e-5)
    assert [p["label"] for p in found] == [LABELS[p["class_id"]] for p in found]


def test_a_plain_answer(seeded):
    found = one(seeded, topk=3)
    assert list(found) == ["request_id", "batch_size", "timing_ms", "model", "image", "predictions"]
    assert found["request_id"] == "toy"
    assert found["model"] == {"name": "toy", "version": "1.0", "architecture": "net.py:Seeded"}
    assert found["image"]["width"] == 451
    assert found["image"]["height"] == 300
    assert len(found["predictions"]) == 3
    assert sorted(found["timing_ms"]) == sorted(STAGES)
    assert found["timing_ms"]["queue"] is None


def test_an_empty_batch_has_no_answers(seeded):
    assert seeded.answer([]) == []


def test_describe_says_what_the_model_is(seeded):
    found = parsed(seeded.answer([Row("id", {}, {"x-request-method": "GET"})])[0])
    SCHEMA.validate(found)
    assert found["classes"] == list(LABELS)
    assert found["default_layer"] == "features"
    assert {"name": "features", "channels": 16, "grid_shape": [8, 8]} in found["layers"]
    assert {m["name"]: m["exact"] for m in found["methods"]}["gradcam"] is True


# --- maps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maps", ["overlay", "heatmap", "grid", "regions", "grid,overlay", "overlay,heatmap,regions"])
def test_the_maps_asked_for_and_no_others(seeded, maps):
    entry = explained(seeded, maps=maps)
    kinds = {"overlay", "heatmap", "grid", "regions"}
    assert kinds & entry.keys() == set(maps.split(","))


def test_every_kind_of_map_shows_the_same_evidence(seeded):
    entry = explained(seeded, maps="overlay,heatmap,grid,regions", image_format="png", max_side=451)
    signed = grid(entry)
    assert signed.shape == (8, 8)
    assert pixels(entry["overlay"]).shape == (300, 451, 3)
    heat = pixels(entry["heatmap"])
    assert heat.shape == (300, 451)
    positive = np.maximum(signed, 0) / signed.max() * 255
    np.testing.assert_allclose(heat[at_cells(300, 75.5)], positive, atol=6)
    assert 0 < entry["regions"][0]["share"] <= 1


@pytest.mark.parametrize(("format", "quality"), [("jpeg", 85), ("webp", 85), ("png", None)])
def test_the_overlay_has_the_format_asked_for(seeded, format, quality):
    overlay = explained(seeded, image_format=format)["overlay"]
    assert overlay["mime"] == f"image/{format}"
    assert overlay.get("quality") == quality


def test_a_large_overlay_steps_down_in_quality(tmp_path):
    small = loaded(tmp_path, max_overlay_bytes=10_000)
    image = encoded(noise(512, 512))
    assert explained(small, image)["overlay"]["quality"] == 55


@pytest.mark.parametrize("contrast", [None, "0", "runner_up"])
def test_the_ledger_closes(seeded, contrast):
    options = {} if contrast is None else {"contrast": contrast}
    found = one(seeded, explain="true", maps="grid", classes="label 3", topk=10, **options)
    (entry,) = found["explanation"]["classes"]
    logit = {p["class_id"]: p["logit"] for p in found["predictions"]}
    expected = logit[3]
    if contrast:
        against = entry["contrast"]["class_id"]
        assert against == (0 if contrast == "0" else next(c for c in logit if c != 3))
        assert entry["contrast"]["label"] == LABELS[against]
        expected -= logit[against]
    else:
        assert entry["contrast"] is None
    ledger = entry["ledger"]
    assert ledger["logit"] == pytest.approx(expected, abs=1e-6)
    assert grid(entry).mean() == pytest.approx(ledger["evidence"], abs=1e-4)
    assert ledger["evidence"] + ledger["bias"] == pytest.approx(expected, abs=1e-4 * max(1, abs(expected)))
    assert ledger["error"] <= 1e-4 * max(1, abs(expected))


def test_no_ledger_where_the_map_is_not_exact(seeded):
    found = one(seeded, explain="true", layer="early.0")["explanation"]
    assert found["exact"] is False
    assert "ledger" not in found["classes"][0]


def test_polarity_shows_the_same_map_from_its_sides(seeded):
    found = {
        polarity: explained(seeded, polarity=polarity, maps="grid,heatmap", max_side=451, contrast="runner_up")
        for polarity in ("positive", "negative", "both")
    }
    signed = grid(found["positive"])
    assert signed.min() < 0 < signed.max()
    for entry in found.values():
        np.testing.assert_array_equal(grid(entry), signed)
    for_it, against, both = (pixels(found[polarity]["heatmap"]).astype(int) for polarity in found)
    assert (both[:, :70] == 128).all()
    assert (for_it[:, :70] == 0).all()
    at = at_cells(300, 75.5)
    np.testing.assert_allclose(for_it[at], signed.clip(0) / signed.max() * 255, atol=6)
    np.testing.assert_allclose(against[at], (-signed).clip(0) / -signed.min() * 255, atol=6)
    np.testing.assert_allclose(both[at], 128 + signed / np.abs(signed).max() * 127, atol=6)
    assert {entry["polarity"] for entry in found.values()} == {"positive", "negative", "both"}


def test_a_map_without_evidence_is_empty_and_its_overlay_plain(bright):
    plain = quarters(96, 96)
    found = one(bright, encoded(plain), explain="true", classes="neither", image_format="png", maps="overlay,regions")
    (entry,) = found["explanation"]["classes"]
    assert (found["explanation"]["status"], entry["status"], entry["regions"]) == ("ok", "empty_map", [])
    np.testing.assert_array_equal(pixels(entry["overlay"]), plain)


def test_the_contrast_with_itself_fails_that_class_only(seeded):
    found = one(seeded, explain="true", classes="top:2", contrast=str(next(iter(logits(seeded.answer([row()])[0])))))
    classes = found["explanation"]["classes"]
    assert found["explanation"]["status"] == "partial"
    assert [entry["status"] for entry in classes] == ["failed", "ok"]
    assert classes[0]["reason"] == "The contrast is the explained class itself."


# --- a picture as the answer --------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["jpeg", "png", "webp"])
def test_accept_gives_the_overlay_itself(seeded, format):
    headers = {"accept": f"image/{format}, */*"}
    answer = seeded.answer([row(headers=headers)])[0]
    assert (answer.status, answer.mime, answer.headers) == (200, f"image/{format}", {"X-Camserve-Status": "ok"})
    assert Image.open(io.BytesIO(answer.body)).format.lower() == format
    entry = explained(seeded, image_format=format)
    assert answer.body == base64.b64decode(entry["overlay"]["data"])


def test_accept_leaves_errors_in_json(seeded):
    answers = seeded.answer([row(b"text", {"accept": "image/png"}), row(None, {"accept": "image/png"}, topk=0)])
    assert [fault(answer)[:2] for answer in answers] == [(415, "UnsupportedFormat"), (400, "InvalidOption")]


# --- the size of an answer ----------------------------------------------------------------------------------


def test_pictures_are_dropped_largest_first_until_the_answer_fits(tmp_path):
    whole = loaded(tmp_path)
    image = encoded(noise(512, 512))
    ask = {"explain": "true", "maps": "overlay,heatmap,grid,regions"}
    full = one(whole, image, **ask)["explanation"]["classes"][0]
    sizes = {name: len(full[name]["data"]) for name in ("overlay", "heatmap", "grid")}
    assert sizes["overlay"] > sizes["heatmap"] > sizes["grid"]
    limit = 10_000
    small = loaded(tmp_path, max_answer_bytes=limit)
    answer = small.answer([row(image, **ask)])[0]
    assert len(answer.body) <= limit
    found = valid(answer)
    (entry,) = found["explanation"]["classes"]
    assert "overlay" not in entry
    assert "grid" in entry
    assert entry["regions"] == full["regions"]
    assert entry["status"] == found["explanation"]["status"] == "failed"
    last = "overlay" if "heatmap" in entry else "heatmap"
    assert entry["reason"] == (f"Dropped {last}: the answer would pass 10000 bytes. Ask for fewer or smaller maps.")
    assert found["predictions"] == one(whole, image)["predictions"]


def test_an_answer_within_the_limit_is_whole(tmp_path):
    answer = loaded(tmp_path, max_answer_bytes=1_000_000).answer([row(explain="true")])[0]
    assert "overlay" in valid(answer)["explanation"]["classes"][0]


# --- explain=auto -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        pytest.param({"probability_below": 1.0}, "probability_below", id="an unlikely class"),
        pytest.param({"margin_below": 1.0}, "margin_below", id="two close classes"),
        pytest.param({"classes": list(range(10))}, "classes", id="a watched class"),
        pytest.param({"sample": 1.0}, "sample", id="every request"),
        pytest.param({"probability_below": 0.0, "margin_below": 0.0, "sample": 0.0}, None, id="none holds"),
        pytest.param({}, None, id="no rule"),
    ],
)
def test_auto_explains_when_a_rule_holds(tmp_path, rule, expected):
    pipeline = loaded(tmp_path, explain_when=rule)
    found = one(pipeline, explain="auto")["explanation"]
    if expected is None:
        assert found == {"status": "not_needed"}
    else:
        assert (found["status"], found["trigger"]) == ("ok", expected)
        assert found["classes"][0]["overlay"]["data"]
    assert "explanation" not in one(pipeline, explain="false")
    assert one(pipeline, explain="true")["explanation"]["trigger"] == "request"


# --- under load ---------------------------------------------------------------------------------------------

LIMIT = 600.0
"""Seconds: so long that no slow machine makes a row late."""


@pytest.fixture
def busy(tmp_path):
    """A pipeline that gives explanations up once a row waited for the limit."""
    return loaded(tmp_path, shed_after_ms=LIMIT * 1e3)


def waited(share: float) -> dict[str, str]:
    """The headers of a row that waited for this share of the limit."""
    return {"x-request-start": f"t={int((time.time() - share * LIMIT) * 1e3)}"}


def statuses(answers: list[Answer]) -> list[str | None]:
    """What became of each explanation; None where none was asked for."""
    return [valid(answer).get("explanation", {}).get("status") for answer in answers]


def test_a_late_batch_is_predicted_and_not_explained(busy):
    ask = {"explain": "true", "classes": "top:3", "maps": "overlay,heatmap,grid,regions", "topk": 10}
    late = one(busy, headers=waited(1.5), **ask)
    assert late["explanation"] == {"status": "shed"}
    assert late["predictions"] == one(busy, topk=10)["predictions"]
    assert [late["timing_ms"][stage] for stage in ("render", "encode")] == [0, 0]


def test_explanations_come_back_once_the_wait_is_below_half(busy):
    found = [one(busy, headers=waited(share), explain="true") for share in (0.9, 1.5, 0.9, 0.6, 0.4, 0.9)]
    assert [answer["explanation"]["status"] for answer in found] == ["ok", "shed", "shed", "shed", "ok", "ok"]


def test_the_oldest_row_decides_for_all_rows_of_a_batch(busy):
    rows = [
        row(headers=waited(0), explain="true"),
        row(headers=waited(1.5)),
        row(explain="true", method="layercam", layer="early.1"),
    ]
    assert statuses(busy.answer(rows)) == ["shed", None, "shed"]
    assert statuses(busy.answer(rows[::2])) == ["ok", "ok"]


def test_nothing_is_shed_where_nobody_says_when_it_began(busy):
    assert statuses(busy.answer([row(headers=waited(2), explain="true")])) == ["shed"]
    assert statuses(busy.answer([row(explain="true")])) == ["ok"]


@pytest.mark.parametrize("limit", [0, 2 * LIMIT * 1e3])
def test_the_limit_is_a_setting(tmp_path, limit):
    pipeline = loaded(tmp_path, shed_after_ms=limit)
    assert statuses(pipeline.answer([row(headers=waited(1.5), explain="true")])) == ["ok"]


def test_a_shed_batch_is_one_plain_forward_and_no_canvas(busy, monkeypatch):
    asked = []

    def spy(name):
        real = getattr(busy.engine, name)
        monkeypatch.setattr(
            busy.engine, name, lambda x, tasks, *more: asked.append(list(tasks)) or real(x, tasks, *more)
        )

    def refuse(*_: object) -> None:
        raise AssertionError("a canvas that nobody will draw on")

    spy("forward")
    spy("maps")
    monkeypatch.setattr("camserve.pipeline.canvas", refuse)
    rows = [row(headers=waited(1.5), explain="true", layer="early.0"), row(explain="auto"), row()]
    busy.answer(rows)
    assert asked == [[None] * 3] * 2


@pytest.mark.parametrize("layer", ["features", "early.0"])
def test_a_plain_row_is_the_same_beside_shed_ones(busy, layer):
    def others(share: float, **options: str) -> list[Row]:
        return [row(coffee(), waited(share), topk=10, **options), row(topk=10)]

    untouched = valid(busy.answer(others(0))[1])
    for share in (0.0, 1.5):
        found = valid(busy.answer(others(share, explain="true", layer=layer))[1])
        assert found.keys() == untouched.keys()
        for part in ("predictions", "image", "batch_size"):
            assert found[part] == untouched[part]


def test_a_rule_that_does_not_hold_sheds_nothing(tmp_path):
    pipeline = toynets.bright(tmp_path, shed_after_ms=LIMIT * 1e3, explain_when={"classes": [0]})
    white, black = (encoded(np.full((64, 64, 3), value, np.uint8)) for value in (255, 0))
    rows = [row(image, waited(1.5), explain="auto") for image in (white, black)]
    assert statuses(pipeline.answer(rows)) == ["shed", "not_needed"]


def test_every_explained_instance_of_a_late_row_is_shed(busy):
    b64 = base64.b64encode(cat()).decode()
    instances = [{"b64": b64, "explain": True}, {"b64": b64}, {"b64": "aa=="}, {"b64": b64, "explain": "true"}]
    answer = busy.answer([Row("toy", {"body": json.dumps({"instances": instances}).encode()}, waited(1.5))])[0]
    found = valid(answer)
    assert found["explanations"] == [{"status": "shed"}, None, None, {"status": "shed"}]
    assert found["predictions"][0]["predictions"] == found["predictions"][1]["predictions"]


def test_a_shed_overlay_as_the_answer_is_the_json_and_says_so_in_a_header(busy):
    answer = busy.answer([row(headers={"accept": "image/png", **waited(1.5)})])[0]
    assert answer.headers == {"X-Camserve-Status": "shed"}
    assert valid(answer)["explanation"] == {"status": "shed"}


def test_the_faults_of_a_late_row_stay_its_own(busy):
    rows = [
        row(b"text", waited(1.5), explain="true"),
        row(headers=waited(1.5), explain="true", classes="no such label"),
        row(headers=waited(1.5), explain="true"),
    ]
    answers = busy.answer(rows)
    assert [answer.status for answer in answers] == [415, 400, 200]
    assert statuses(answers[2:]) == ["shed"]


def test_who_asks_for_the_description_is_not_in_the_way(busy):
    """Those asked while the worker loaded wait for it, and tell nothing of how busy it is."""
    asking = Row("toy", {}, {"x-request-method": "GET", **waited(1.5)})
    assert statuses(busy.answer([asking, row(headers=waited(0), explain="true")])[1:]) == ["ok"]


# --- what breaks --------------------------------------------------------------------------------------------


def test_a_row_whose_logits_are_not_finite_fails_alone(tmp_path, caplog):
    pipeline = loaded(tmp_path, toynets.SEEDED, "Bursting")
    white = encoded(np.full((70, 70, 3), 255, np.uint8))
    rows = [row(), row(white), row(white, explain="true"), row(coffee(), explain="true", maps="grid")]
    answers = pipeline.answer(rows)
    assert [answer.status for answer in answers] == [200, 500, 500, 200]
    assert fault(answers[1]) == (
        500,
        "InternalError",
        "The request could not be answered; the server's log has the reason.",
    )
    alone = valid(pipeline.answer(rows[3:])[0])["explanation"]["classes"][0]
    mine = valid(answers[3])["explanation"]["classes"][0]
    np.testing.assert_allclose(grid(mine), grid(alone), atol=1e-3)
    assert caplog.messages.count("camserve: the network's logits are not finite for a picture") == 2


def test_a_method_that_breaks_costs_no_prediction(seeded, monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("hostile details")

    plain = valid(seeded.answer([row()])[0])["predictions"]
    monkeypatch.setattr(engine, "METHODS", {**engine.METHODS, "layercam": Method("Broken", "nobody", broken)})
    answer = seeded.answer([row(explain="true", method="layercam", maps="overlay,grid")])[0]
    found = valid(answer)
    assert found["predictions"] == plain
    assert found["explanation"]["status"] == "failed"
    (entry,) = found["explanation"]["classes"]
    assert (entry["status"], entry["reason"]) == ("failed", "The explanation failed; the server's log has the reason.")
    assert not {"overlay", "grid"} & entry.keys()
    assert b"hostile" not in answer.body


def test_a_broken_explanation_as_a_picture_comes_back_as_json(seeded, monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(engine, "METHODS", {**engine.METHODS, "layercam": Method("Broken", "nobody", broken)})
    answer = seeded.answer([row(None, {"accept": "image/png"}, method="layercam")])[0]
    assert answer.headers == {"X-Camserve-Status": "failed"}
    assert valid(answer)["explanation"]["status"] == "failed"


def test_a_network_that_breaks_answers_500_and_keeps_the_other_errors(seeded, monkeypatch):
    network = seeded.engine.network

    def broken(inputs):
        if inputs.diff().abs().mean() < 0.1:
            raise RuntimeError("at all that is not noise")
        return network(inputs)

    monkeypatch.setattr(seeded.engine, "network", broken)
    monkeypatch.setattr(seeded.engine, "tape", None)
    answers = seeded.answer([row(), row(b"text"), row(explain="true")])
    assert [fault(answer)[:2] for answer in answers] == [
        (500, "InternalError"),
        (415, "UnsupportedFormat"),
        (500, "InternalError"),
    ]


def test_a_network_that_fails_at_anything_ends_the_service(seeded, monkeypatch):
    def lost(_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(seeded.engine, "network", lost)
    monkeypatch.setattr(seeded.engine, "tape", None)
    with pytest.raises(NetworkLost, match=r"^The network fails at whatever it is given \(RuntimeError\);"):
        seeded.answer([row(), row(explain="true")])


# --- labels -------------------------------------------------------------------------------------------------

HOSTILE = (
    'quotes " and \\ backslash',
    "<script>alert(1)</script>",
    "emoji 🦊 and عربي",
    "x" * 1_000,
    "tab\tand bell\x07",
    "a, comma; and 'quotes'",
    "null",
    "7",
    "",
    "\ufeff\u200b\u202e",
)


def test_hostile_labels_survive_in_json(tmp_path):
    pipeline = loaded(tmp_path, labels=HOSTILE)
    found = one(pipeline, topk=10, explain="true", classes="0,1,2,3,4,5,6,7,8,9", maps="regions")
    assert {p["class_id"]: p["label"] for p in found["predictions"]} == dict(enumerate(HOSTILE))
    assert [entry["label"] for entry in found["explanation"]["classes"]] == list(HOSTILE)


def test_hostile_labels_can_be_asked_for(tmp_path):
    pipeline = loaded(tmp_path, labels=HOSTILE)
    entries = one(pipeline, explain="true", maps="regions", classes=json.dumps([HOSTILE[2], HOSTILE[5], "label:7"]))
    assert [entry["class_id"] for entry in entries["explanation"]["classes"]] == [2, 5, 7]


# --- KServe -------------------------------------------------------------------------------------------------


def kserve(pipeline: Pipeline, *instances: object, **parameters: object) -> Answer:
    whole = {"instances": instances, "parameters": parameters}
    return pipeline.answer([Row("toy", {"body": json.dumps(whole).encode()}, {})])[0]


def test_instances_run_parallel_and_fail_alone(seeded):
    b64 = base64.b64encode(cat()).decode()
    answer = kserve(
        seeded,
        {"b64": b64},
        {"b64": base64.b64encode(b"text").decode()},
        {"b64": b64, "explain": True, "maps": ["grid"]},
        {},
        topk=2,
    )
    found = valid(answer)
    kinds = [p.get("error", {}).get("type") for p in found["predictions"]]
    assert kinds == [None, "UnsupportedFormat", None, "MissingImage"]
    assert [e and e["status"] for e in found["explanations"]] == [None, None, "ok", None]
    assert found["predictions"][0]["predictions"] == found["predictions"][2]["predictions"]
    assert len(found["predictions"][0]["predictions"]) == 2


def test_no_good_instance_gives_the_first_ones_status(seeded):
    answer = kserve(seeded, {"b64": base64.b64encode(b"text").decode()}, {})
    assert answer.status == 415
    found = parsed(answer)
    SCHEMA.validate(found)
    assert [p["error"]["code"] for p in found["predictions"]] == [415, 400]


# --- time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "known"),
    [
        ("t={now}", True),
        ("{now}", True),
        ("t=soon", False),
        ("t=0", False),
        ("t=-5", False),
        ("t=٣", False),
        ("", False),
    ],
)
def test_the_wait_in_the_queue_is_told_where_it_is_known(seeded, start, known):
    headers = {"x-request-start": start.format(now=int(time.time() * 1e3) - 250)}
    waited = one(seeded, headers=headers)["timing_ms"]["queue"]
    assert (250 <= waited < 5_000) if known else waited is None


# --- time -------------------------------------------------------------------------------------------------


def test_what_is_not_explained_in_time_is_given_up_and_no_prediction_is(tmp_path):
    hurried = loaded(tmp_path, toynets.SEEDED, "Seeded", explain_within_ms=1e-3)
    plain, explained = hurried.answer([row(), row(explain="true", classes="top:3", maps="overlay,grid")])
    assert valid(explained)["predictions"] == valid(plain)["predictions"]
    classes = valid(explained)["explanation"]["classes"]
    assert [one["status"] for one in classes] == ["failed"] * 3
    assert {one["reason"] for one in classes} == {engine.LATE}


@pytest.mark.parametrize(("crop", "status"), [("0,0,400,20", 200), ("0,0,401,20", 400), ("0,0,16,300", 200)])
def test_a_crop_may_be_as_long_as_a_picture_and_no_longer(seeded, crop, status):
    (answer,) = seeded.answer([row(cat(), crop=crop)])
    assert answer.status == status
    if status == 400:
        width, height = crop.split(",")[2:]
        told = f"Option 'crop': expected a longer side of at most 20 times the shorter, got {width}x{height}."
        assert fault(answer)[1:] == ("InvalidOption", told)


# --- load ---------------------------------------------------------------------------------------------------


def test_the_preprocessing_must_be_declared(tmp_path):
    with pytest.raises(SetupError) as caught:
        Pipeline.load(tmp_path, Settings.read({"architecture": "net.py:Seeded"}, {}), "toy", "1.0")
    assert str(caught.value) == (
        "The preprocessing is not declared: give resize, crop, interpolation, mean and std; "
        "a wrong guess would change predictions without a word."
    )


def test_a_network_may_pass_by_name(seeded, tmp_path):
    named, asked = loaded(tmp_path, toynets.SEEDED, "Named"), row(cat(), explain="true", maps="grid")
    one, other = (good(pipeline.answer([asked])[0]) for pipeline in (named, seeded))
    assert [p["class_id"] for p in one["predictions"]] == [p["class_id"] for p in other["predictions"]]
    np.testing.assert_allclose(
        *(grid(answer["explanation"]["classes"][0]) for answer in (one, other)), rtol=1e-4, atol=1e-4
    )


def test_labels_must_be_as_many_as_outputs(tmp_path):
    with pytest.raises(SetupError) as caught:
        loaded(tmp_path, labels=LABELS[:9])
    assert str(caught.value) == "The network has 10 outputs and there are 9 labels: give one label each."


def cramped(folder: Path, room: int) -> Pipeline:
    pipeline = loaded(folder, toynets.SEEDED, "Cramped")
    pipeline.engine.network.room = room
    pipeline.engine.tape = None  # as on a GPU
    return pipeline


@pytest.mark.parametrize("room", [1, 3, 7])
def test_a_batch_too_large_for_the_gpu_is_split(room, tmp_path, seeded, caplog):
    rows = [row(encoded(noise(80, 90, seed)), explain=str(seed % 2 == 0).lower(), maps="grid") for seed in range(8)]
    answers = cramped(tmp_path, room).answer(rows)
    for ours, theirs in zip(map(valid, answers), map(valid, seeded.answer(rows)), strict=True):
        assert [one["class_id"] for one in ours["predictions"]] == [one["class_id"] for one in theirs["predictions"]]
        if "explanation" in theirs:
            assert ours["explanation"]["status"] == "ok"
            mine, other = (grid(one["explanation"]["classes"][0]) for one in (ours, theirs))
            np.testing.assert_allclose(mine, other, atol=1e-4)
    assert "camserve: a batch of 8 pictures failed and is split: OutOfMemoryError" in caplog.messages


def test_a_picture_for_which_the_gpu_has_no_room_gets_an_error_of_its_own(tmp_path, caplog):
    answers = cramped(tmp_path, 0).answer([row(), row(explain="true"), row(b"no picture")])
    assert [answer.status for answer in answers] == [500, 500, 415]
    assert caplog.messages.count("camserve: the forward failed") == 2


def test_a_picture_on_which_the_network_fails_fails_alone(tmp_path):
    """Whatever the reason: the batch is tried in parts until the picture is by itself."""
    pipeline = loaded(tmp_path, toynets.SEEDED, "Picky")
    rows = [row(encoded(noise(80, 90, seed)), explain="true") for seed in range(7)]
    rows.insert(3, row(encoded(np.zeros((80, 90, 3), np.uint8)), explain="true"))
    answers = pipeline.answer(rows)
    assert [answer.status for answer in answers] == [200] * 3 + [500] + [200] * 4
