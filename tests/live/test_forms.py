"""Every way to send a picture and its options answers the same."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest
import requests
from service import CAT, COFFEE, EGYPTIAN_CAT, ESPRESSO, Reply, b64, pixels, validated

pytestmark = pytest.mark.live

URLENCODED = {"Content-Type": "application/x-www-form-urlencoded"}
MULTIPART = {"data": None, "files": {"data": ("cat.jpg", CAT, "image/jpeg")}}
FORM = {"data": {"explain": "true"}, "files": {"data": ("cat.jpg", CAT, "image/jpeg")}}
JSON = json.dumps({"data": b64(CAT), "explain": True})

EXPLAINED = {
    "curl -T": {"path": "?explain=true", "method": "PUT"},
    "curl --data-binary, urlencoded": {"path": "?explain=true", "headers": URLENCODED},
    "raw body, no content type": {"path": "?explain=true"},
    "raw body, text/plain": {"path": "?explain=true", "headers": {"Content-Type": "text/plain"}},
    "multipart, option in the query": {"path": "?explain=true", **MULTIPART},
    "multipart, option as a field": FORM,
    "JSON": {"data": JSON},
    "JSON, content type named": {"data": JSON, "headers": {"Content-Type": "application/json; charset=utf-8"}},
    "header": {"headers": {"X-Camserve-Explain": "true"}},
    "/explanations": {"path": "/explanations/classifier"},
    "version in the path": {"path": "/predictions/classifier/1.0?explain=true"},
    "/models/{m}/invoke": {"path": "/models/classifier/invoke?explain=true"},
    "/{m}/predict": {"path": "/classifier/predict?explain=true"},
    "/{m}/{v}/predict": {"path": "/classifier/1.0/predict?explain=true"},
    "/invocations": {"path": "/invocations?model_name=classifier&explain=true"},
    "native /models/{m}/invoke": {"path": "/models/classifier/invoke?explain=true", "native": True},
    "native /{m}/predict": {"path": "/classifier/predict?explain=true", "native": True},
    "native /{m}/{v}/predict": {"path": "/classifier/1.0/predict?explain=true", "native": True},
    "native /invocations": {"path": "/invocations?model_name=classifier&explain=true", "native": True},
    "native /explanations": {"path": "/explanations/classifier", "native": True},
    "native multipart": {**FORM, "native": True},
    "native header": {"headers": {"X-Camserve-Explain": "true"}, "native": True},
    "native JSON": {"data": JSON, "headers": {"Content-Type": "application/json"}, "native": True},
}


@pytest.mark.parametrize("form", EXPLAINED.values(), ids=EXPLAINED)
def test_every_form_predicts_and_explains(service, form):
    reply = service.ask(**form)
    assert reply.top == EGYPTIAN_CAT
    assert len(reply.json["predictions"]) == 5
    assert reply.explained["status"] == "ok"
    assert reply.explained["overlay"]["mime"] == "image/jpeg"
    assert pixels(reply.explained["overlay"]).shape == (300, 451, 3)


@pytest.mark.parametrize("native", [False, True], ids=["gateway", "native"])
def test_a_plain_request_has_no_explanation(service, native):
    reply = service.ask(native=native)
    assert reply.top == EGYPTIAN_CAT
    assert "explanation" not in reply.json


def test_the_heat_lies_on_the_cat(service):
    reply = service.ask("?explain=true&maps=overlay,heatmap,regions")
    heat = pixels(reply.explained["heatmap"]).astype(float)
    rows, columns = np.indices(heat.shape)
    centre = (heat * columns).sum() / heat.sum(), (heat * rows).sum() / heat.sum()
    assert 150 < centre[0] < 320  # between the ears
    assert 70 < centre[1] < 260
    assert reply.explained["regions"][0]["share"] > 0.3


@pytest.mark.tool("curl")
def test_curl_uploads_a_file(service, tmp_path):
    picture = tmp_path / "cat.jpg"
    picture.write_bytes(CAT)
    for upload in (["-T", picture], ["--data-binary", f"@{picture}"]):
        command = ["curl", "-sS", *upload, f"{service.gateway}/predictions/classifier?explain=true"]
        done = subprocess.run(command, capture_output=True, check=True, timeout=60)
        answer = validated(json.loads(done.stdout))
        assert answer["predictions"][0]["class_id"] == EGYPTIAN_CAT
        assert answer["explanation"]["status"] == "ok"


def test_a_chunked_upload_is_answered(service):
    assert service.ask(data=iter([CAT[:1000], CAT[1000:]])).top == EGYPTIAN_CAT


def test_query_beats_field_beats_header(service):
    headers = {"X-Camserve-Topk": "1"}
    field = {"data": {"topk": "2"}, "files": {"data": CAT}}
    assert len(service.ask(headers=headers).json["predictions"]) == 1
    assert len(service.ask(headers=headers, **field).json["predictions"]) == 2
    assert len(service.ask("?topk=3", headers=headers, **field).json["predictions"]) == 3


def test_explanations_can_be_switched_off_and_predictions_by_a_field(service):
    assert "explanation" not in service.ask("/explanations/classifier?explain=false").json
    off = {"headers": {"X-Camserve-Explain": "false"}}
    assert "explanation" not in service.ask("/explanations/classifier", **off).json


def test_a_forged_query_header_is_overwritten(service):
    forged = {"X-Camserve-Query": "topk=1"}
    assert len(service.ask(headers=forged).json["predictions"]) == 5
    assert len(service.ask("?topk=2", headers=forged).json["predictions"]) == 2


# --- KServe V1 ----------------------------------------------------------------------------------------------


def kserve(service, body, verb="predict", query=""):
    return service.ask(f"/v1/models/classifier:{verb}{query}", json.dumps(body))


def test_kserve_predict_answers_each_instance(service):
    instances = [{"b64": b64(CAT)}, {"b64": b64(COFFEE), "explain": True}, {"b64": b64(b"no picture")}]
    reply = kserve(service, {"instances": instances, "parameters": {"topk": 2}})
    assert reply.status == 200
    cat, coffee, text = reply.json["predictions"]
    assert cat["predictions"][0]["class_id"] == EGYPTIAN_CAT
    assert len(cat["predictions"]) == 2
    assert coffee["predictions"][0]["class_id"] == ESPRESSO
    assert text["error"]["code"] == 415
    assert [explanation and explanation["status"] for explanation in reply.json["explanations"]] == [None, "ok", None]


def test_kserve_explain_explains_by_default(service):
    reply = kserve(service, {"instances": [{"b64": b64(CAT)}]}, "explain")
    assert reply.json["explanations"][0]["status"] == "ok"


def test_kserve_instance_beats_parameters_and_query_beats_both(service):
    body = {"instances": [{"b64": b64(CAT), "topk": 3}], "parameters": {"topk": 2}}
    assert len(kserve(service, body).json["predictions"][0]["predictions"]) == 3
    assert len(kserve(service, body, query="?topk=4").json["predictions"][0]["predictions"]) == 4


def test_kserve_without_a_good_instance_has_the_first_errors_status(service):
    reply = kserve(service, {"instances": [{"b64": b64(b"text")}, {"b64": "?"}]})
    assert reply.status == 415
    assert [one["error"]["code"] for one in reply.json["predictions"]] == [415, 400]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"instances": []}, "Expected 'instances' to be a list of 1 to 8 objects, got 0."),
        ({"instances": [{}] * 9}, "Expected 'instances' to be a list of 1 to 8 objects, got 9."),
        ({"instances": [{}], "x": 1}, "Expected only 'instances' and 'parameters', got 'x' too."),
    ],
    ids=["none", "nine", "unknown key"],
)
def test_kserve_bodies_that_cannot_be_read(service, body, message):
    assert kserve(service, body).error == (400, "InvalidRequest", message)


# --- a picture as the answer --------------------------------------------------------------------------------


@pytest.mark.parametrize(("mime", "format"), [("image/jpeg", "JPEG"), ("image/png", "PNG"), ("image/webp", "WEBP")])
def test_accept_picture_returns_the_overlay_itself(service, mime, format):
    import io

    from PIL import Image

    reply = service.ask(headers={"Accept": f"{mime}, */*;q=0.5"})
    assert reply.status == 200
    assert reply.headers["content-type"] == mime
    image = Image.open(io.BytesIO(reply.body))
    assert (image.format, image.size) == (format, (451, 300))
    assert reply.headers["x-camserve-status"] == "ok"


def test_accept_picture_wants_one_class(service):
    code, kind, message = service.ask("?classes=top:2", headers={"Accept": "image/jpeg"}).error
    assert (code, kind) == (400, "InvalidOption")
    assert message == "Option 'classes': a picture as the answer shows exactly one class; ask for one."


def test_an_error_stays_json_where_a_picture_is_accepted(service):
    assert service.ask(data=b"text", headers={"Accept": "image/png"}).error[0] == 415


# --- describe, liveness, readiness --------------------------------------------------------------------------


def assert_describes(reply: Reply) -> None:
    answer = reply.json
    assert answer["default_layer"] == "bn2"
    assert len(answer["classes"]) == 1000
    assert {"name": "bn2", "channels": 1280, "grid_shape": [7, 7]} in answer["layers"]
    assert [m["name"] for m in answer["methods"] if m["exact"]] == ["cam", "gradcam", "hirescam", "xgradcam"]


@pytest.mark.parametrize("accept", ["application/json", "*/*"])
def test_get_describes_the_model(service, accept):
    assert_describes(service.ask(data=None, method="GET", headers={"Accept": accept}))


def test_without_the_gateway_a_get_looks_like_a_post_without_a_picture(service):
    code, kind, _ = service.ask(data=None, method="GET", native=True).error
    assert (code, kind) == (400, "MissingImage")


def test_the_management_port_describes_the_model(service):
    url = f"http://127.0.0.1:{service.stack.ports.management}/models/classifier?customized=true"
    answer = requests.get(url, timeout=60).json()
    described = answer[0]["customizedMetadata"]
    assert described["default_layer"] == "bn2"


def test_ready_and_ping(service):
    assert service.ask("/ready", None, "GET").status == 200
    assert service.ask("/ready/classifier", None, "GET").status == 200
    assert service.ask("/ready/other", None, "GET").status == 503
    assert service.ask("/ping", None, "GET").status == 200


def test_head_is_answered_without_a_body(service):
    reply = service.ask(data=None, method="HEAD")
    assert (reply.status, reply.body) == (200, b"")
