from tools.export_saved_model import labels_text


def test_a_name_a_line() -> None:
    assert labels_text(["cat", "Vögel"]) == "cat\nVögel\n".encode()


def test_a_name_stays_on_its_line() -> None:
    assert labels_text(["bird\nof prey", "a\r\nb", "", "c"]) == b"bird of prey\na b\n\nc\n"
