"""Which pictures of a folder count."""

from __future__ import annotations

import os

import numpy as np
import pytest

from camserve.errors import SetupError
from camserve.evaluate.sample import SURE, read
from pictures import encoded


def labels(folder, *rows: str, head: str = "file,class_id") -> None:
    (folder / "labels.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")


@pytest.fixture
def folder(painter, tmp_path):
    return painter(tmp_path / "photos", 12)


def test_without_labels_the_models_own_class_is_the_class(colours, folder):
    sample = read(colours, folder)
    assert [one.class_id for one in sample.pictures] == [0, 1, 2, 3] * 3
    assert not sample.labelled
    assert not sample.left_out
    for one in sample.pictures:
        assert one.view.shape == (64, 64, 3)
        assert SURE <= one.probability <= 1


def test_the_labelled_class_is_the_class(colours, folder):
    labels(folder, *(f"{number:02}.png,{number % 4}" for number in range(11)), "11.png,0", head="file,class_id,label")
    sample = read(colours, folder)
    assert sample.labelled
    assert len(sample.pictures) == 11
    assert sample.left_out == {"11.png": "its class has the probability 0.00, less than 0.3"}


def test_files_that_do_not_count_are_named_with_the_reason(colours, folder):
    (folder / "broken.png").write_bytes(encoded(np.zeros((8, 8, 3), np.uint8))[:40])
    (folder / "text.jpg").write_text("no picture")
    (folder / "notes.txt").write_text("no picture, and does not say so")
    (folder / "bytes").write_bytes(encoded(np.zeros((64, 64, 3), np.uint8)))  # a picture without an ending
    (folder / "folder.png").mkdir()
    left_out = read(colours, folder).left_out
    assert left_out.keys() == {"broken.png", "text.jpg", "bytes"}
    assert left_out["broken.png"].startswith("it cannot be read: The PNG picture is broken")
    assert left_out["text.jpg"].startswith("it cannot be read: Expected a picture in one of the formats")
    assert left_out["bytes"] == "its class has the probability 0.25, less than 0.3"


def test_a_name_that_is_no_text_can_be_written_down(colours, folder):
    (folder / "00.png").rename(folder / os.fsdecode(b"\xe9.png"))
    (folder / "odd").symlink_to("/proc/self/mem")  # may be opened, and cannot be read from its beginning
    sample = read(colours, folder)
    assert "\\udce9.png" in {one.file for one in sample.pictures}
    assert sample.left_out["odd"].startswith("it cannot be read: ")


def test_a_picture_that_labels_do_not_name_does_not_count(colours, folder):
    labels(folder, *(f"{number:02}.png,{number % 4}" for number in range(10)))
    assert read(colours, folder).left_out == dict.fromkeys(("10.png", "11.png"), "labels.csv does not name it")


def test_ten_pictures_are_enough(colours, painter, tmp_path):
    assert len(read(colours, painter(tmp_path / "photos", 10)).pictures) == 10


def test_nine_pictures_are_too_few(colours, painter, tmp_path):
    folder = painter(tmp_path / "photos", 9)
    (folder / "text.jpg").write_text("no picture")
    with pytest.raises(SetupError) as refused:
        read(colours, folder)
    assert str(refused.value) == (
        "Expected at least 10 pictures whose class the model gives a probability of 0.3 or more; "
        f"9 of 10 in {str(folder)!r} count."
    )


def test_no_folder(colours, tmp_path):
    with pytest.raises(SetupError, match="There is no folder"):
        read(colours, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"file,label\n00.png,red\n", "labels.csv must be UTF-8 text with the columns file and class_id."),
        (b"file,class_id\n00.png\n", "labels.csv must be UTF-8 text with the columns file and class_id."),
        (b"file,class_id\n\xff\xfe,1\n", "labels.csv must be UTF-8 text with the columns file and class_id."),
        (b"file,class_id\n00.png,4\n", "labels.csv: expected a class_id from 0 to 3, got '4'."),
        (b"file,class_id\n00.png,-1\n", "labels.csv: expected a class_id from 0 to 3, got '-1'."),
        (b"file,class_id\n00.png,red\n", "labels.csv: expected a class_id from 0 to 3, got 'red'."),
    ],
)
def test_wrong_labels_are_refused_in_one_sentence(colours, folder, content, sentence):
    (folder / "labels.csv").write_bytes(content)
    with pytest.raises(SetupError) as refused:
        read(colours, folder)
    assert str(refused.value) == sentence
