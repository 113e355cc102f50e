"""What TorchServe hands over, as rows."""

from __future__ import annotations

import warnings

import pytest

from camserve.errors import InvalidRequest
from camserve.request import read
from camserve_handler import _row

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # it leaves a file open
    from ts.context import Context, RequestProcessor


@pytest.fixture
def context():
    """TorchServe's own, of one request."""
    context = Context("toy", "", {}, 1, None, "0")
    context.request_ids, context.request_processor = {0: "r"}, [RequestProcessor({"Accept": "*/*"})]
    return context


def nested(depth: int) -> dict:
    """JSON of so many brackets in brackets."""
    value = []
    for _ in range(depth):
        value = [value]
    return {"data": value}


@pytest.mark.parametrize("decoded", [{"topk": 10**30}, {"data": "\ud800"}, nested(300)])
def test_json_that_only_torchserve_takes_for_json_is_refused_by_its_row(decoded, context):
    row = _row({"body": decoded}, 0, context)
    assert (row.request_id, row.headers) == ("r", {"accept": "*/*"})
    with pytest.raises(InvalidRequest, match="The body is not valid JSON"):
        read(row, 8, 1024)


def test_json_that_torchserve_decoded_is_the_same_as_the_body(context):
    row = _row({"body": {"data": "AAAA", "topk": 3}}, 0, context)
    assert row.fields == {"body": b'{"data":"AAAA","topk":3}'}
