from pathlib import Path

import numpy as np
import pytest

from artsel_ray.data import image_validation as gallery
from artsel_ray.data import images
from artsel_ray.simulate.drawing import draw


@pytest.mark.usefixtures("ray_cluster")
def test_each_picture_has_its_place_or_its_fault_in_the_order_of_the_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "_PICTURES", 2)
    monkeypatch.setattr(gallery, "_PROGRESS_SECONDS", 0.0)
    (tmp_path / "good.png").write_bytes(draw(np.array([0.5, 0.5])))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    signed = "s3://bucket/a.png?endpoint_override=elsewhere"
    uris = ["good.png", "bad.png", "gone.png", str(tmp_path / "good.png"), signed]
    place = f"{tmp_path}/good.png"
    assert gallery.validate_images(uris, str(tmp_path)) == [
        (place, ""),
        ("bad.png", images.UNKNOWN_FORMAT),
        ("gone.png", images.MISSING_FILE),
        (place, ""),
        (signed, images.SETTINGS),
    ]
    assert "pictures: 4 of 5 looked at" in capsys.readouterr().out
