"""The command line: what goes wrong is one plain sentence and exit status 1."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from camserve import cli
from camserve.archive import check_room
from camserve.errors import SetupError
from camserve.stack import Ports

HANDLER = Path(cli.__file__).parents[1]


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert all(command in text for command in ("archive", "serve", "start", "stop"))


@pytest.mark.parametrize(("command", "module"), [("stop", "psutil"), ("archive", "torch"), ("serve", "psutil")])
def test_a_missing_module_is_one_sentence(tmp_path, command, module):
    # None in sys.modules makes the import fail as if the module were not installed.
    config = Path(__file__).parents[1] / "config" / "model-config.yaml"
    flags = ["--config", str(config)] if command == "archive" else []
    code = f"import sys; sys.modules[{module!r}] = None; from camserve.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, command, *flags],
        cwd=tmp_path,
        env={"PYTHONPATH": str(HANDLER)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == f"camserve: The Python module '{module}' is missing: run 'make install'.\n"


def test_help_needs_no_other_module():
    code = "import sys; sys.modules.update(torch=None, psutil=None, numpy=None); import camserve.cli as c; c.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", "--help"],
        env={"PYTHONPATH": str(HANDLER)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_an_archive_that_is_not_there(tmp_path, capsys):
    assert cli.main(["serve", "--store", str(tmp_path), "--state", str(tmp_path / "state")]) == 1
    sentence = capsys.readouterr().err
    assert sentence == (
        f"camserve: There is no model archive {tmp_path / 'classifier.mar'}: build it with `camserve archive`.\n"
    )


def test_a_port_in_use(tmp_path, capsys, monkeypatch):
    import socket
    import zipfile

    zipfile.ZipFile(tmp_path / "classifier.mar", "w").close()
    ports = Ports.free()
    with socket.create_server(("127.0.0.1", ports.inference)):
        for name in ("gateway", "inference", "management", "metrics", "grpc", "grpc_management"):
            monkeypatch.setenv(f"CAMSERVE_{name.upper()}_PORT", str(getattr(ports, name)))
        assert cli.main(["serve", "--store", str(tmp_path), "--state", str(tmp_path / "state")]) == 1
    sentence = capsys.readouterr().err
    assert sentence.startswith(f"camserve: Port {ports.inference} is ")
    assert "CAMSERVE_INFERENCE_PORT" in sentence


def test_a_full_disk_stops_an_archive_before_anything_is_written(tmp_path):
    with pytest.raises(SetupError, match=r"^The disk is full: .* MB free and \d+ are needed\.$"):
        check_room(tmp_path, 10**18)
    check_room(tmp_path, 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full (Linux)")
def test_a_full_disk_under_a_written_file(capsys, monkeypatch):
    monkeypatch.setattr("camserve.archive.build", lambda recipe, store: Path("/dev/full").write_text("x" * 10**6))
    config = Path(__file__).parents[1] / "config" / "model-config.yaml"
    assert cli.main(["archive", "--config", str(config)]) == 1
    assert capsys.readouterr().err == "camserve: The disk is full: No space left on device (no file named).\n"


def test_nothing_to_stop(tmp_path, capsys):
    assert cli.main(["stop", "--state", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "Nothing is running.\n"
