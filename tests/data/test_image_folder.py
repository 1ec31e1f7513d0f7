from pathlib import Path

import pytest

from data.image_folder import Layout, class_names, find_layout, list_images
from tests.data.conftest import DataErrorLine, MakeFolder


def test_classes_and_files_are_sorted(make_folder: MakeFolder) -> None:
    folder = make_folder({"zebra": 1, "Ähre": 2, "black cat": 1, "Zoo": 1})
    assert class_names(folder) == ("Zoo", "black cat", "zebra", "Ähre")
    assert list_images(folder) == [
        (f"{folder}/Zoo/0000.png", 0),
        (f"{folder}/black cat/0000.png", 1),
        (f"{folder}/zebra/0000.png", 2),
        (f"{folder}/Ähre/0000.png", 3),
        (f"{folder}/Ähre/0001.png", 3),
    ]


def test_hidden_and_system_files_are_left_out(make_folder: MakeFolder) -> None:
    folder = make_folder({"a": 1, "b": 1, ".git": 1})
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0000.png"):
        (Path(folder) / "a" / name).write_bytes(b"not an image")
    (Path(folder) / "notes.txt").write_text("files beside the classes are nobody's images")
    assert class_names(folder) == ("a", "b")
    assert list_images(folder) == [(f"{folder}/a/0000.png", 0), (f"{folder}/b/0000.png", 1)]


def test_class_without_image_is_named(
    make_folder: MakeFolder, data_error_line: DataErrorLine
) -> None:
    folder = make_folder({"a": 1, "b": 0})
    (Path(folder) / "b" / ".hidden.png").touch()
    with data_error_line("images/b: the class b has no image"):
        list_images(folder)


def test_empty_folder(tmp_path: Path, data_error_line: DataErrorLine) -> None:
    assert class_names(str(tmp_path)) == ()
    with data_error_line("expected one subfolder of images per class, found an empty folder"):
        list_images(str(tmp_path))


def test_folder_of_images_without_classes(tmp_path: Path, data_error_line: DataErrorLine) -> None:
    (tmp_path / "a.png").touch()
    with data_error_line(r"one subfolder of images per class, found none \(but a\.png\)"):
        list_images(str(tmp_path))


def test_missing_folder_is_named(tmp_path: Path, data_error_line: DataErrorLine) -> None:
    with data_error_line("none: "):
        list_images(str(tmp_path / "none"))


def test_layout_of_plain_classes(make_folder: MakeFolder) -> None:
    folder = make_folder({"b": 1, "a": 1})
    assert find_layout(folder) == Layout(folder, None, ("a", "b"))


def test_layout_of_train_and_test(make_folder: MakeFolder) -> None:
    folder = make_folder({"train/b": 1, "train/a": 1, "test/a": 1, "test/b": 1})
    assert find_layout(folder) == Layout(f"{folder}/train", f"{folder}/test", ("a", "b"))


def test_layout_of_train_alone(make_folder: MakeFolder) -> None:
    folder = make_folder({"train/b": 1, "train/a": 1})
    assert find_layout(folder) == Layout(f"{folder}/train", None, ("a", "b"))


def test_class_may_be_called_train(make_folder: MakeFolder) -> None:
    folder = make_folder({"car": 1, "train": 1})
    assert find_layout(folder) == Layout(folder, None, ("car", "train"))


@pytest.mark.parametrize(
    ("subfolders", "message"),
    [
        (["test/a", "test/b"], "expected train/ with or without test/, found test/"),
        (["train/a", "test/a", "val/a"], "expected train/ .*, found test/, train/, val/"),
        (["train/a", "train/b", "test/a"], "same classes; only in train/: b"),
        (["train/a", "test/a", "test/c", "test/b"], "same classes; only in test/: b, c"),
        (["train/a", "test/b"], "same classes; only in train/: a; only in test/: b"),
    ],
)
def test_bad_layout_is_refused(
    subfolders: list[str], message: str, make_folder: MakeFolder, data_error_line: DataErrorLine
) -> None:
    folder = make_folder(dict.fromkeys(subfolders, 1))
    with data_error_line(f"images: .*{message}"):
        find_layout(folder)
