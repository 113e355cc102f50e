"""gRPC Predictions: the same options, the same JSON; errors too, since gRPC loses the status."""

from __future__ import annotations

import importlib.util
import json
import sys
import zipfile
from pathlib import Path

import grpc
import pytest
from grpc_tools import protoc
from service import CAT, EGYPTIAN_CAT, b64, validated

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    """TorchServe's own protocol files, which are inside its jar, compiled."""
    folder = tmp_path_factory.mktemp("protos")
    jar = Path(importlib.util.find_spec("ts").origin).parent / "frontend" / "model-server.jar"
    with zipfile.ZipFile(jar) as archive:
        archive.extract("inference.proto", folder)
    common = Path(importlib.util.find_spec("google.rpc").submodule_search_locations[0]).parents[1]
    builtin = Path(importlib.util.find_spec("grpc_tools").submodule_search_locations[0]) / "_proto"
    includes = [f"-I{path}" for path in (folder, common, builtin)]
    outputs = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    assert protoc.main(["protoc", *includes, *outputs, "inference.proto"]) == 0
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("inference_pb2"), importlib.import_module("inference_pb2_grpc")
    finally:
        sys.path.remove(str(folder))


@pytest.fixture
def predict(service, stubs):
    """predict(**fields): the JSON object that comes back."""
    messages, services = stubs
    with grpc.insecure_channel(f"127.0.0.1:{service.stack.ports.grpc}") as channel:
        stub = services.InferenceAPIsServiceStub(channel)

        def call(**fields):
            request = messages.PredictionsRequest(model_name="classifier", input=fields)
            return validated(json.loads(stub.Predictions(request, timeout=60).prediction))

        yield call


def test_a_picture_is_predicted(predict):
    answer = predict(data=CAT)
    assert answer["predictions"][0]["class_id"] == EGYPTIAN_CAT
    assert "explanation" not in answer


def test_options_are_fields(predict):
    answer = predict(data=CAT, explain=b"true", topk=b"2", classes=b"tabby")
    assert len(answer["predictions"]) == 2
    assert answer["explanation"]["classes"][0]["label"] == "tabby"


def test_json_travels_in_the_field_body(predict):
    body = json.dumps({"data": b64(CAT), "explain": True}).encode()
    assert predict(body=body)["explanation"]["status"] == "ok"


@pytest.mark.parametrize(
    ("fields", "code"),
    [({}, 400), ({"data": b"text"}, 415), ({"data": CAT[:5000]}, 422), ({"data": CAT, "topk": b"0"}, 400)],
    ids=["no picture", "text", "cut short", "bad option"],
)
def test_errors_come_as_the_same_json(predict, fields, code):
    assert predict(**fields)["code"] == code
