from pathlib import Path

import numpy as np
import pytest

from artsel_ray.data import image_validation, images
from artsel_ray.simulate.artworks import draw


@pytest.mark.usefixtures("ray_cluster")
def test_each_image_has_its_location_or_its_fault_in_the_order_of_the_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_validation, "_TASK_IMAGES", 2)
    monkeypatch.setattr(image_validation, "_PROGRESS_SECONDS", 0.0)
    (tmp_path / "good.png").write_bytes(draw(np.array([0.5, 0.5])))
    (tmp_path / "bad.png").write_bytes(b"not an image")
    signed = "s3://bucket/a.png?endpoint_override=elsewhere"
    uris = ["good.png", "bad.png", "gone.png", str(tmp_path / "good.png"), signed]
    location = f"{tmp_path}/good.png"
    assert image_validation.validate_images(uris, str(tmp_path)) == [
        (location, ""),
        ("bad.png", images.UNKNOWN_FORMAT),
        ("gone.png", images.MISSING_FILE),
        (location, ""),
        (signed, images.SETTINGS),
    ]
    assert "images: 4 of 5 validated" in (printed := capsys.readouterr().out)
    assert "images: 3 of 5 are unusable" in printed


def test_unreadable_file_is_tried_again_and_an_absent_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(image_validation.time, "sleep", waits.append)
    faults = [images.UNREADABLE_FILE, images.UNREADABLE_FILE]

    def fetch(uri: str) -> bytes:
        if faults:
            raise images.UnusableError(faults.pop())
        return draw(np.array([1.0]))

    monkeypatch.setattr(image_validation, "fetch", fetch)
    assert image_validation._validate(str(tmp_path), "a.png") == (f"{tmp_path}/a.png", "")
    assert waits == [1.0, 4.0]
    faults += [images.UNREADABLE_FILE] * 3
    assert image_validation._validate(str(tmp_path), "a.png") == ("a.png", images.UNREADABLE_FILE)
    faults.append(images.MISSING_FILE)
    assert image_validation._validate(str(tmp_path), "a.png") == ("a.png", images.MISSING_FILE)
    assert waits == [1.0, 4.0] * 2
