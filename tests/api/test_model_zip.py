"""Models as one zip: what comes back is what was written, and what was changed on the way is refused by name."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flrplan.anatomy import Mask, Structure
from flrplan.api.model_zip import export_models, import_exported
from flrplan.cli import main
from flrplan.engine import DEMO_NOTE, MODEL_ROOT, Cascade, CascadeSettings, ModelStore
from flrplan.errors import ModelError, OutputError
from flrplan.files import current_version, sha256_of_file
from flrplan.image import CT
from flrplan.method import CRLM, FLR, LIVER
from flrplan.nnunet.imported.source import unpack
from flrplan.nnunet.model import ModelFolder
from flrplan.planning.calibration import Calibration

Change = Callable[[dict[str, bytes]], object]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, demo_store: ModelStore) -> Path:
    """A folder with the demo model of the liver, and the calibration of it."""
    root = tmp_path_factory.mktemp("models")
    shutil.copytree(MODEL_ROOT / "demo" / "liver", root / "liver", ignore=shutil.ignore_patterns("training_cohort.json"))
    decides = Cascade(demo_store, CascadeSettings(device="cpu")).identity(LIVER).decides
    Calibration({"liver": decides}, {"mirroring": False}, "cases of nobody", {}).write(root / "calibration.json", "nnunet")
    return root


@pytest.fixture(scope="module")
def exported(root: Path) -> Path:
    """As a demo model's: the folder is taken for that of the demo models."""
    out = root / "out" / "liver.zip"
    shutil.copy(MODEL_ROOT / "demo" / "LICENSE", root / "LICENSE")
    export_models(ModelStore(root, demo=root), out)
    return out


def files_in(models: Path) -> dict[str, bytes]:
    return {p.relative_to(models).as_posix(): p.read_bytes() for p in models.rglob("*") if p.is_file() and p.suffix != ".lock"}


def test_the_demo_models_answer_the_same_in_another_folder_and_stay_demo_models(
    tmp_path: Path,
    demo_store: ModelStore,
    small_ct: CT,
    small_truth: dict[Structure, Mask],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, models = tmp_path / "demo.zip", tmp_path / "other"
    own = tmp_path / "none"
    own.mkdir()
    assert main(["models", "export", str(out), "--models", str(own)]) == 0
    assert f"SHA-256 {sha256_of_file(out)}" in capsys.readouterr().out
    assert main(["models", "import", str(out), "--models", str(models)]) == 0
    assert f"imported: {models / 'flr' / 'nnunet'}, folds 0, 1" in capsys.readouterr().out
    given = {s: small_truth[s] for s in (Structure.LIVER, Structure.CRLM)}
    settings = CascadeSettings(device="cpu")
    there = Cascade(ModelStore(models, demo=None), settings).run(small_ct, given, (FLR,))
    here = Cascade(demo_store, settings).run(small_ct, given, (FLR,))
    assert np.array_equal(there.masks[Structure.FLR], here.masks[Structure.FLR])
    assert (there.models, there.warnings) == (here.models, here.warnings)
    assert DEMO_NOTE in there.warnings
    assert (models / "calibration.json").read_bytes() == (MODEL_ROOT / "demo" / "calibration.json").read_bytes()
    for name in ("LICENSE", "README.md"):
        assert (models / "liver" / "nnunet" / name).read_bytes() == (MODEL_ROOT / "demo" / name).read_bytes()
    assert [p.name for p in models.iterdir() if p.name.startswith(".unpacked")] == []
    again = tmp_path / "again.zip"
    export_models(ModelStore(models, demo=None), again)
    with zipfile.ZipFile(again) as archive:
        assert json.loads(archive.read("manifest.json"))["models"]["liver/nnunet"] == {"demo": True}


def test_the_zip_holds_card_licence_hashes_and_calibration(root: Path, exported: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(exported) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(content["manifest.json"])
    assert {*manifest["sha256"]} == {*content} - {"manifest.json"}
    assert manifest["sha256"]["liver/nnunet/fold_0/checkpoint_final.pth"] == sha256_of_file(
        root / "liver" / "nnunet" / "fold_0" / "checkpoint_final.pth"
    )
    assert {"calibration.json", "liver/nnunet/LICENSE", "liver/nnunet/fold_1/run.json"} <= {*content}
    assert "not for patients" in content["README.md"].decode()
    assert "| liver/nnunet | label liver, sees the whole CT | 2 | 160 |" in content["README.md"].decode()
    again = tmp_path / "liver.zip"
    export_models(ModelStore(root, demo=root), again)
    assert again.read_bytes() == exported.read_bytes(), "the same models give the same zip"


def rewritten(exported: Path, path: Path, change: Change, mode: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(exported) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    change(content)
    with zipfile.ZipFile(path, "w", mode) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def replaced(name: str, old: bytes, new: bytes) -> Change:
    return lambda content: content.update({name: content[name].replace(old, new)})


def listed(name: str, data: bytes = b"", **more: Any) -> Change:
    """A file, or something else, that the manifest states."""

    def change(content: dict[str, bytes]) -> None:
        manifest = {**json.loads(content["manifest.json"]), **more}
        if data:
            content[name] = data
            manifest["sha256"][name] = hashlib.sha256(data).hexdigest()
        content["manifest.json"] = json.dumps(manifest).encode()

    return change


def without_licence(content: dict[str, bytes]) -> None:
    manifest = json.loads(content["manifest.json"])
    del content["liver/nnunet/LICENSE"], manifest["sha256"]["liver/nnunet/LICENSE"]
    content["manifest.json"] = json.dumps(manifest).encode()


def calibration_of_others() -> bytes:
    own = {"models": {"liver": {"0": "f" * 64}}, "settings": {}, "calibrated_on": "cases of nobody", "cases": {}}
    return json.dumps({"schema": 1, "nnunet": own}).encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replaced("liver/nnunet/plans.json", b"patch_size", b"patch_sise"), "liver/nnunet/plans.json is not what was exported"),
        (replaced("calibration.json", b"nobody", b"anybody"), "calibration.json is not what was exported"),
        (lambda c: c.pop("liver/nnunet/fold_1/checkpoint_final.pth"), "fold_1/checkpoint_final.pth is missing in it"),
        (lambda c: c.update({"liver/nnunet/more.py": b"x"}), "liver/nnunet/more.py was added to it"),
        (lambda c: c.update({"../../climbs.txt": b"x"}), r"names '../../climbs.txt', a path outside of itself"),
        (lambda c: c.update({"manifest.json": b"{"}), "its manifest.json is damaged; ask for the zip again"),
        (lambda c: c.update({"manifest.json": b" " * 2**21}), "its manifest.json is larger than any"),
        (replaced("manifest.json", b"models 1", b"models 2"), "use the flrplan that wrote it"),
        (replaced("manifest.json", b'"liver/nnunet": {', b'"../out/nnunet": {'), "names a model '../out/nnunet', expected"),
        (
            replaced("manifest.json", b'"liver/nnunet": {', b'"crlm/nnunet": {'),
            "liver/nnunet/LICENSE is no file of an exported",
        ),
        (listed("manifest.json", models={}), "its manifest.json names no model; ask for the zip again"),
        (listed("liver/nnunet/current", b"7"), "liver/nnunet/current is no file of an exported model, so nothing is taken"),
        (listed("liver/nnunet/fold_0/setup.py", b"7"), "liver/nnunet/fold_0/setup.py is no file of an exported model"),
        (listed("liver/nnunet/Plans.json", b"{}"), "which many disks take for one; export the model again"),
        (lambda c: c.update({".": b"x"}), "names '.', a path outside of itself"),
        (lambda c: c.update({"/tmp/climbs.txt": b"x"}), "names '/tmp/climbs.txt', a path outside of itself"),
        (lambda c: c.update({f"liver/nnunet/x{k}": bytes(2**25) for k in range(3)}), "was added to it after it was exported"),
        (without_licence, "nothing says under which licence liver/nnunet may be used; ask for the zip again, with its LICENSE"),
        (listed("liver/nnunet/published.json", b'{"distilled": "x"}'), "liver/nnunet: published.json is damaged (distilled)"),
        (listed("liver/nnunet/fold_0/run.json", b'{"train_ids": [["a"]]}'), "run.json is damaged: expected lists of case ids"),
        (listed("liver/nnunet/fold_1/run.json", b"[]"), "run.json is damaged: expected a JSON object"),
        (
            listed("calibration.json", calibration_of_others()),
            "its calibration.json was made with other weights than those beside it",
        ),
    ],
)
def test_a_zip_that_was_changed_is_refused(
    exported: Path, tmp_path: Path, change: Change, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "models"
    source = rewritten(exported, tmp_path / "changed.zip", change)
    assert main(["models", "import", str(source), "--models", str(models)]) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert str(source) in printed
    assert ".unpacked" not in printed
    assert not models.exists() or list(models.iterdir()) == []


def test_what_unpacks_to_more_than_weights_can_is_not_unpacked(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "liver/nnunet/fold_0/checkpoint_final.pth"
    source = rewritten(exported, tmp_path / "bomb.zip", lambda c: c.update({name: bytes(65 * 2**20)}), zipfile.ZIP_DEFLATED)
    assert main(["models", "import", str(source), "--models", str(tmp_path / "models")]) == 1
    assert f"{name} would unpack to {65 * 2**20} bytes" in capsys.readouterr().err


def test_a_zip_of_many_files_that_each_unpack_to_little_is_a_bomb_all_the_same(exported: Path, tmp_path: Path) -> None:
    names = [f"liver/nnunet/fold_{k}/checkpoint_final.pth" for k in range(3)]
    source = rewritten(
        exported, tmp_path / "bomb.zip", lambda c: [c.update({n: bytes(33 * 2**20)}) for n in names], zipfile.ZIP_DEFLATED
    )
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match=r"bomb\.zip has \d+ bytes and would unpack to \d+, which no weights do"):
        unpack(source, ".", names, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("mode", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_zip_that_was_damaged_on_the_way_is_no_traceback(
    exported: Path, tmp_path: Path, mode: int, capsys: pytest.CaptureFixture[str]
) -> None:
    source = rewritten(exported, tmp_path / "m.zip", lambda c: None, mode)
    with zipfile.ZipFile(source) as archive:
        start = archive.getinfo("liver/nnunet/fold_0/checkpoint_final.pth").header_offset
    content = bytearray(source.read_bytes())
    content[start + 2000 : start + 2400] = bytes(b ^ 255 for b in content[start + 2000 : start + 2400])
    source.write_bytes(content)
    assert main(["models", "import", str(source), "--models", str(tmp_path / "models")]) == 1
    assert "the zip cannot be unpacked" in capsys.readouterr().err
    for length in (0, 100, len(content) // 2, len(content) - 200, len(content) - 22, len(content) - 10):
        source.write_bytes(content[:length])
        assert main(["models", "import", str(source), "--models", str(tmp_path / "models")]) == 1
        printed = capsys.readouterr().err
        assert re.search(r"copy it again|give the folder above its fold", printed), (length, printed)
    assert main(["models", "import", str(tmp_path / "none.zip"), "--models", str(tmp_path / "models")]) == 1
    assert "none.zip: no such file or folder" in capsys.readouterr().err


def test_a_link_in_a_zip_is_refused(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link = zipfile.ZipInfo("liver/nnunet/LICENSE")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    source = rewritten(exported, tmp_path / "m.zip", lambda c: c.pop("liver/nnunet/LICENSE"))
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr(link, b"/etc/passwd")
    assert main(["models", "import", str(source), "--models", str(tmp_path / "models")]) == 1
    assert "liver/nnunet/LICENSE is a link, not a file" in capsys.readouterr().err


def test_what_cannot_be_put_in_place_leaves_all_models_as_they_were(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unpacked(content: dict[str, bytes]) -> None:
        """Another model beside that of the liver."""
        manifest = json.loads(content["manifest.json"])
        for name in [n for n in content if n.startswith("liver/nnunet/")]:
            other = name.replace("liver/nnunet", "liver/other")
            content[other] = content[name]
            manifest["sha256"][other] = manifest["sha256"][name]
        manifest["models"]["liver/other"] = {"demo": True}
        content["manifest.json"] = json.dumps(manifest).encode()

    source, models = rewritten(exported, tmp_path / "two.zip", unpacked), tmp_path / "models"

    def there() -> set[str]:
        return {p.relative_to(models).as_posix() for p in models.rglob("*") if p.is_file() and not p.name.endswith(".lock")}

    (models / "liver").mkdir(parents=True)
    (models / "liver" / "other").write_text("a file in its place")
    with pytest.raises(OutputError, match=r"could not put a new version into .*other"):
        import_exported(source, models, force=True)
    assert there() == {"liver/other"}
    (models / "liver" / "other").unlink()
    import_exported(exported, models)
    before = there()
    (models / "liver" / "other").write_text("a file in its place")
    with pytest.raises(OutputError, match=r"could not put a new version into .*other"):
        import_exported(source, models, force=True)
    assert current_version(models / "liver" / "nnunet") == models / "liver" / "nnunet"
    assert there() - {"liver/other", "liver/nnunet/current"} == before
    assert ModelStore(models, demo=None).find(LIVER, "nnunet").folder.folds == (0, 1)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OutputError, match=r"could not be unpacked into .*: No space left on device; make room"):
        import_exported(exported, tmp_path / "elsewhere")
    assert [p for p in (tmp_path / "elsewhere").rglob("*") if p.is_file()] == []


def test_a_calibration_that_cannot_be_written_leaves_all_models_as_they_were(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_exported(exported, tmp_path)
    calibration = tmp_path / "calibration.json"
    calibration.write_text("{")
    before = files_in(tmp_path)
    with pytest.raises(ModelError, match=re.escape(f"{calibration} is damaged")):
        import_exported(exported, tmp_path, force=True)
    assert files_in(tmp_path) == before
    calibration.unlink()
    import_exported(exported, tmp_path, force=True)
    assert current_version(tmp_path / "liver" / "nnunet").name == "1"
    before = files_in(tmp_path)

    def full(self: Path, target: Path) -> Path:
        if Path(target).name == "calibration.json" or "calibration.json" in self.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return Path(os.rename(self, target) or target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match=r"could not write .*calibration\.json: No space left on device"):
        import_exported(exported, tmp_path, force=True)
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("there", [False, True])
def test_an_import_that_is_interrupted_leaves_all_models_as_they_were(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    if there:
        import_exported(exported, tmp_path)
    before, opened = files_in(tmp_path), ModelFolder.open

    def ctrl_c(path: Path) -> ModelFolder:
        if ".unpacked" not in str(path):
            raise KeyboardInterrupt
        return opened(path)

    monkeypatch.setattr(ModelFolder, "open", ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        import_exported(exported, tmp_path, force=True)
    assert files_in(tmp_path) == before


def test_a_model_that_is_there_is_replaced_only_when_asked(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["models", "import", str(exported), "--models", str(tmp_path)]
    assert main(command) == 0
    assert main(command) == 1
    assert f"{tmp_path / 'liver' / 'nnunet'} exists already; give --force" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    assert (tmp_path / "liver" / "nnunet" / "versions" / "1" / "plans.json").is_file()
    assert main([*command, "--force", "--stage", "crlm"]) == 1
    assert "holds no model of stage crlm, but liver/nnunet" in capsys.readouterr().err
    assert main([*command, "--force", "--label", "liver"]) == 1
    assert "says itself what its models are" in capsys.readouterr().err


def test_what_cannot_be_exported_says_why(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.zip"
    command = ["models", "export", str(out), "--models", str(root)]
    assert main(command) == 1
    assert (
        "nothing says under which licence this model may be used; give its text with --licence FILE" in capsys.readouterr().err
    )
    assert not out.exists()
    (tmp_path / "mine.txt").write_text("mine")
    assert main([*command, "--licence", str(tmp_path / "mine.txt")]) == 0
    assert main([*command, "--licence", str(tmp_path / "mine.txt")]) == 1
    assert "exists already" in capsys.readouterr().err
    with zipfile.ZipFile(out) as archive:
        assert archive.read("liver/nnunet/LICENSE") == b"mine"
        assert json.loads(archive.read("manifest.json"))["models"] == {"liver/nnunet": {"demo": False}}
    assert CRLM.name not in str(archive.namelist())


@pytest.mark.parametrize("option", ["--architecture stunet", "--checkpoint checkpoint_best.pth", "--label liver"])
def test_a_zip_of_ours_says_itself_what_it_holds(
    exported: Path, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "import", str(exported), "--models", str(tmp_path / "models"), *option.split()]) == 1
    assert "says itself what its models are; leave --label, --configuration, --architecture," in capsys.readouterr().err


def test_a_foreign_model_still_needs_its_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "import", str(MODEL_ROOT / "demo" / "liver" / "nnunet"), "--models", str(tmp_path)]) == 1
    assert "--stage is missing: which of liver, crlm" in capsys.readouterr().err
