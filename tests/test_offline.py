"""`camserve explain`: the service's answers as files."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from PIL import Image

import camserve
import toynets
from camserve import cli
from camserve.drift import evidence
from camserve.errors import SetupError
from camserve.offline import explain, find_pictures
from pictures import cat

SCHEMA = Draft202012Validator(json.loads((Path(camserve.__file__).parent / "schema.json").read_text()))
PREPROCESSING = json.dumps(toynets.PLAIN)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("one.jpg", "two.jpg"):
        (folder / name).write_bytes(cat())
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The flags of the seeded toy network."""
    folder = tmp_path_factory.mktemp("model")
    architecture = toynets.archive(folder, toynets.SEEDED, "Seeded", toynets.LABELS)
    return [
        f"--model={folder / architecture}",
        f"--weights={folder / 'weights.pt'}",
        f"--labels={folder / 'labels.txt'}",
        f"--preprocessing={PREPROCESSING}",
    ]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def opened(path):
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())))


def test_the_answer_is_the_services(seeded, tmp_path):
    (tmp_path / "cat.jpg").write_bytes(cat())
    options = {"classes": "3,4", "maps": "overlay,heatmap,grid", "topk": "2"}
    (done,) = explain(seeded, [tmp_path / "cat.jpg"], options, tmp_path / "out")
    assert done.good
    written = json.loads((tmp_path / "out" / "cat.json").read_bytes())
    SCHEMA.validate(written)
    served = toynets.good(seeded.answer([toynets.row(explain=True, **options)])[0])
    assert written["explanation"] == served["explanation"]
    assert written["predictions"] == served["predictions"]


def test_pictures_are_written_as_they_are_in_the_answer(seeded, tmp_path):
    (tmp_path / "cat.jpg").write_bytes(cat())
    options = {"classes": "3", "maps": "overlay,heatmap", "image_format": "webp"}
    (done,) = explain(seeded, [tmp_path / "cat.jpg"], options, tmp_path / "out")
    assert names(tmp_path / "out") == ["cat-3-heatmap.png", "cat-3-overlay.webp", "cat.json"]
    (entry,) = json.loads((tmp_path / "out" / "cat.json").read_bytes())["explanation"]["classes"]
    assert np.array_equal(opened(tmp_path / "out" / "cat-3-overlay.webp"), toynets.pixels(entry["overlay"]))
    assert {path.name for path in done.written} == set(names(tmp_path / "out"))


def test_several_classes_give_a_sheet(seeded, tmp_path):
    (tmp_path / "cat.jpg").write_bytes(cat())
    list(explain(seeded, [tmp_path / "cat.jpg"], {"classes": "top:6"}, tmp_path / "out"))
    drawn = opened(tmp_path / "out" / "cat-sheet.jpg")
    columns, rows = 4, 2  # the picture and six overlays
    assert drawn.shape[1] == columns * 248 + 8
    assert drawn.shape[0] > rows * 240 * 300 / 451


def test_more_pictures_than_a_batch_keep_their_order(bright, tmp_path):
    files = []
    for level in range(11):
        file = tmp_path / f"{level}.png"
        Image.new("RGB", (64, 64), (level * 20,) * 3).save(file)
        files.append(file)
    done = list(explain(bright, files, {}, tmp_path / "out"))
    assert [one.file for one in done] == files
    logits = [
        next(
            p["logit"]
            for p in json.loads((tmp_path / "out" / f"{n}.json").read_bytes())["predictions"]
            if p["class_id"] == 0
        )
        for n in range(11)
    ]
    assert logits == sorted(logits)
    assert len(set(logits)) == 11


def test_a_broken_file_is_told_of_and_the_others_go_on(seeded, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(cat()[:2000])
    (tmp_path / "good.jpg").write_bytes(cat())
    bad, good = explain(seeded, [tmp_path / "bad.jpg", tmp_path / "good.jpg"], {}, tmp_path / "out")
    assert not bad.good
    assert bad.line.startswith("The JPEG picture is broken or cut short")
    assert good.good
    assert names(tmp_path / "out") == ["good-{}-overlay.jpg".format(best(tmp_path / "out" / "good.json")), "good.json"]


def best(answer):
    return json.loads(answer.read_bytes())["predictions"][0]["class_id"]


def test_files_of_the_same_name_do_not_overwrite_each_other(seeded, tmp_path):
    files = [tmp_path / side / "cat.jpg" for side in ("left", "right")]
    for file in files:
        file.parent.mkdir()
        file.write_bytes(cat())
    list(explain(seeded, files, {"maps": "grid"}, tmp_path / "out"))
    assert names(tmp_path / "out") == ["cat-2.json", "cat.json"]


def test_no_name_takes_anothers_place(seeded, tmp_path):
    files = [tmp_path / name for name in ("cat-2.jpg", "cat.jpg", "cat.png", "CAT.jpeg", "z\udce4hler.jpg")]
    for file in files:
        file.write_bytes(cat())
    files.insert(2, tmp_path / "vanished.jpg")
    done = list(explain(seeded, files, {"maps": "grid"}, tmp_path / "out"))
    assert [one.good for one in done] == [True, True, False, True, True, True]
    assert done[2].line.startswith("The picture is empty")
    assert len(names(tmp_path / "out")) == 5


def test_a_folder_is_its_pictures(photos):
    assert find_pictures([photos]) == [photos / "one.jpg", photos / "two.jpg"]
    assert find_pictures([photos / "two.jpg", photos]) == [photos / name for name in ("two.jpg", "one.jpg", "two.jpg")]


def test_a_file_of_a_folder_that_cannot_be_read_is_told_of(seeded, photos, tmp_path):
    (photos / "odd").symlink_to("/proc/self/mem")  # may be opened, and cannot be read from its beginning
    files = find_pictures([photos])
    assert [file.name for file in files] == ["odd", "one.jpg", "two.jpg"]
    assert [one.good for one in explain(seeded, files, {}, tmp_path / "out")] == [False, True, True]


def test_a_name_that_is_no_text_is_shown_escaped(photos, model, tmp_path):
    named = photos / os.fsdecode(b"caf\xe9.jpg")
    named.write_bytes(cat())
    done = subprocess.run(
        [sys.executable, "-m", "camserve.cli", "explain", str(photos), "--output", str(tmp_path / "out"), *model],
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "caf\\udce9.jpg: " in done.stdout
    assert "Explained 3 of 3 pictures" in done.stdout


def test_places_without_pictures(tmp_path):
    with pytest.raises(SetupError, match=r"^There is no file '.*nowhere\.jpg'\.$"):
        find_pictures([tmp_path / "nowhere.jpg"])
    with pytest.raises(SetupError, match=r"^There is no picture in '.*'\.$"):
        find_pictures([tmp_path])


def test_the_command_explains_a_folder(photos, model, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["explain", str(photos), "--output", str(out), "--grid", "3", *model]) == 0
    told = capsys.readouterr().out
    assert told.endswith(f"Explained 2 of 2 pictures into {out}.\n")
    assert f"{photos / 'one.jpg'}: label " in told
    assert {"one.json", "one-sheet.jpg", "two.json", "two-sheet.jpg"} <= set(names(out))
    assert len(json.loads((out / "one.json").read_bytes())["explanation"]["classes"]) == 3


def test_the_command_tells_what_failed(photos, model, tmp_path, capsys):
    (photos / "zebra.jpg").write_bytes(cat()[:1000])
    assert cli.main(["explain", str(photos), "--output", str(tmp_path / "out"), *model]) == 1
    captured = capsys.readouterr()
    assert captured.out.endswith(f"Explained 2 of 3 pictures into {tmp_path / 'out'}.\n")
    assert f"{photos / 'zebra.jpg'}: " in captured.err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--opacity", "2"], "camserve: Option 'opacity': expected a number from 0 to 1, got '2'.\n"),
        (["--grid", "21"], "camserve: Option 'classes': expected top:N with N from 1 to 20"),
        (["--grid", "3", "--classes", "1"], "camserve: Give --grid N for the N likeliest classes, or --classes, not"),
    ],
)
def test_wrong_options_are_told_before_the_model_loads(photos, flags, sentence, capsys):
    assert cli.main(["explain", str(photos), "--model", "timm/there_is_no_such", *flags]) == 1
    assert capsys.readouterr().err.startswith(sentence)


def test_an_archive_is_opened_with_its_own_settings(photos, model, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text("batchSize: 2\ncamserve: {layer: early.1, max_forwards: 8}\n")
    assert cli.main(["archive", "--name", "toy", "--config", str(config), "--store", str(tmp_path), *model]) == 0
    arguments = ["--model", str(tmp_path / "toy.mar"), "--output", str(tmp_path / "out"), "--method", "scorecam"]
    assert cli.main(["explain", str(photos / "one.jpg"), *arguments]) == 0
    answer = json.loads((tmp_path / "out" / "one.json").read_bytes())
    assert answer["model"]["name"] == "toy"
    assert answer["explanation"]["layer"] == "early.1"
    capsys.readouterr()
    assert cli.main(["layers", str(tmp_path / "toy.mar")]) == 0
    assert "early.1" in capsys.readouterr().out


def test_archives_that_are_none(tmp_path, capsys):
    assert cli.main(["layers", str(tmp_path / "no.mar")]) == 1
    assert capsys.readouterr().err.startswith("camserve: There is no archive '")
    (tmp_path / "bad.mar").write_bytes(b"not a zip")
    assert cli.main(["layers", str(tmp_path / "bad.mar")]) == 1
    assert capsys.readouterr().err == (
        "camserve: bad.mar is not an archive of camserve's: build it with `camserve archive`.\n"
    )


def test_layers_are_listed_with_their_grids_but_no_folded_convolution(model, capsys):
    architecture = model[0].removeprefix("--model=")
    assert cli.main(["layers", architecture, *model[1:]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["layer", "grid", "channels", "module"]
    assert [line.split()[:4] for line in lines[1:]] == [
        ["early.0", "16x16", "8", "Conv2d"],
        ["early.1", "16x16", "8", "ReLU"],
        ["early", "16x16", "8", "Sequential"],
        ["features.1", "8x8", "16", "FoldedBatchNorm"],
        ["features.2", "8x8", "16", "ReLU"],
        ["features", "8x8", "16", "Sequential"],
    ]
    assert lines[-1].endswith("<- default, exact")


def test_every_option_is_a_flag(capsys):
    from camserve.options import Options

    with pytest.raises(SystemExit):
        cli.main(["explain", "--help"])
    text = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')} " in text for name in Options.model_fields if name != "explain")
    assert "(default: top:1)" in " ".join(text.split())


def test_a_sheet_is_a_picture(seeded, tmp_path):
    (tmp_path / "cat.jpg").write_bytes(cat())
    list(explain(seeded, [tmp_path / "cat.jpg"], {"classes": "1,2"}, tmp_path / "out"))
    drawn = opened(tmp_path / "out" / "cat-sheet.jpg")
    original = drawn[8 : 8 + 160, 8:248].astype(int)
    overlaid = drawn[8 : 8 + 160, 256:496].astype(int)
    assert np.abs(original - overlaid).mean() > 5, "the overlay shows nothing"
    assert original.std() > 20, "the picture is not there"


def test_a_reference_is_kept_in_the_archive_and_is_the_mean_evidence(photos, model, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text('batchSize: 2\ncamserve: {class_groups: {all: "0-9"}}\n')
    assert cli.main(["archive", "--name", "toy", "--config", str(config), "--store", str(tmp_path), *model]) == 0
    (photos / "broken.jpg").write_bytes(cat()[:500])
    for _ in range(2):  # the second takes the first one's place
        assert cli.main(["reference", str(photos), "--archive", str(tmp_path / "toy.mar")]) == 0
    assert "     2  all\n" in capsys.readouterr().out
    with zipfile.ZipFile(tmp_path / "toy.mar") as archive:
        assert archive.namelist().count("reference.json") == 1
        assert "weights.pt" in archive.namelist()
        kept = json.loads(archive.read("reference.json"))
    assert cli.main(["explain", str(photos / "one.jpg"), "--maps=grid", f"--output={tmp_path / 'out'}", *model]) == 0
    (entry,) = json.loads((tmp_path / "out" / "one.json").read_bytes())["explanation"]["classes"]
    np.testing.assert_allclose(kept["all"], evidence(toynets.grid(entry)), atol=1e-6)
    assert cli.main(["layers", str(tmp_path / "toy.mar")]) == 0, "the archive is still one"
    capsys.readouterr()
    assert cli.main(["archive", "--name", "toy", "--config", str(config), "--store", str(tmp_path), *model]) == 0
    assert "The one before had a reference" in capsys.readouterr().out
    assert cli.main(["archive", "--name", "toy", "--config", str(config), "--store", str(tmp_path), *model]) == 0
    assert "The one before" not in capsys.readouterr().out


def test_a_reference_needs_an_archive(photos, tmp_path, capsys):
    assert cli.main(["reference", str(photos), "--archive", str(tmp_path / "no.mar")]) == 1
    assert capsys.readouterr().err.startswith("camserve: There is no archive '")
