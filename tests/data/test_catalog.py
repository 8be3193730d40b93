"""Artworks are by title, and an invalid row never hides a valid one."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artsel_ray import schema
from artsel_ray.config import AssetKind
from artsel_ray.data import catalog as module
from artsel_ray.data import image_files, images
from artsel_ray.data.catalog import Catalog, permuted, read_catalog
from artsel_ray.simulate.artworks import draw


def _write(path: Path, rows: list[dict], table: str) -> str:
    fields = [field.with_nullable(True) for field in schema.TABLES[table]]
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(fields)), path)
    return str(path)


def test_artworks_are_sorted_by_title_and_id_over_all_files(tmp_path: Path) -> None:
    titles = [
        _write(tmp_path / "t1", [{"title_id": "z", "name": "Z", "genres": []}], "titles"),
        _write(tmp_path / "t2", [{"title_id": "a", "name": "A", "genres": ["x"]}], "titles"),
    ]
    artworks = [
        _write(tmp_path / "a1", [{"artwork_id": "3", "title_id": "a", "caption": "three"}], "artworks"),
        _write(
            tmp_path / "a2",
            [
                {"artwork_id": "9", "title_id": "z", "caption": "nine"},
                {"artwork_id": "10", "title_id": "z", "caption": "ten"},
                {"artwork_id": "1", "title_id": "a", "caption": "one"},
            ],
            "artworks",
        ),
    ]
    catalog, invalid = read_catalog(titles, artworks)
    assert catalog.title_ids.to_pylist() == ["z", "a"]
    # Ids are text: "10" comes before "9".
    assert catalog.artwork_ids.to_pylist() == ["10", "9", "1", "3"]
    assert catalog.contents.to_pylist() == ["ten", "nine", "one", "three"]
    assert catalog.offsets.tolist() == [0, 2, 4]
    assert invalid.num_rows == 0


def test_invalid_row_does_not_hide_a_valid_one_with_its_id(tmp_path: Path) -> None:
    rows: list[dict] = [{"title_id": "a", "name": name, "genres": []} for name in ("", "First", "Second")]
    titles = [_write(tmp_path / "t", rows, "titles")]
    artworks = [_write(tmp_path / "a", [], "artworks")]
    catalog, invalid = read_catalog(titles, artworks)
    assert catalog.names.to_pylist() == ["First"]
    assert catalog.offsets.tolist() == [0, 0]
    assert [(row["row"], row["column"]) for row in invalid.to_pylist()] == [(0, "name"), (2, "title_id")]


def test_title_with_more_artworks_than_examples_may_have_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CANDIDATES", 2)
    titles = [_write(tmp_path / "t", [{"title_id": id_, "name": "N", "genres": []} for id_ in "ab"], "titles")]
    rows = [{"artwork_id": f"{id_}{n}", "title_id": id_, "caption": "c"} for id_, n in ("a2", "b1", "a0", "b0", "a1")]
    rows.append({"artwork_id": "b2", "title_id": "b", "caption": "s", "asset_kind": "synopsis"})
    catalog, invalid = read_catalog(titles, [_write(tmp_path / "a", rows, "artworks")])
    assert (catalog.artwork_ids.to_pylist(), catalog.offsets.tolist()) == (["b0", "b1"], [0, 0, 2])
    assert invalid["row"].to_pylist() == [0, 2, 4]
    assert set(invalid["reason"].to_pylist()) == {"its title has more than 2 artworks"}


def test_only_assets_of_the_requested_kind_are_candidates(tmp_path: Path) -> None:
    titles = [_write(tmp_path / "t", [{"title_id": "a", "name": "A", "genres": []}], "titles")]
    kinds = {"1": None, "2": "artwork", "3": "synopsis", "4": "trailer", "5": "poster"}
    rows = [{"artwork_id": i, "title_id": "a", "caption": "x", "asset_kind": kind} for i, kind in kinds.items()]
    artworks = [_write(tmp_path / "a", rows, "artworks")]
    expected: dict[AssetKind, list[str]] = {"artwork": ["1", "2"], "synopsis": ["3"], "trailer": ["4"]}
    for kind, ids in expected.items():
        catalog, invalid = read_catalog(titles, artworks, kind)
        assert catalog.artwork_ids.to_pylist() == ids
        assert catalog.contents.to_pylist() == ["x"] * len(ids)
        assert sorted(catalog.other_ids.to_pylist()) == sorted({"1", "2", "3", "4"} - set(ids))
        assert [(row["column"], row["artwork_id"]) for row in invalid.to_pylist()] == [("asset_kind", "5")]


def test_permutation_keeps_titles_and_captions_together() -> None:
    ids = [f"a{n}" for n in range(60)]
    names, nothing = pa.array(["x", "y", "z"]), pa.array([], pa.string())
    texts = pa.array([f"caption of {each}" for each in ids])
    catalog = Catalog(names, names, pa.nulls(3), pa.array(ids), np.array([0, 5, 5, 60]), texts, nothing)
    assert permuted(catalog, 0) == catalog
    orders = []
    for number in range(1, 30):
        other = permuted(catalog, number)
        artworks = other.artwork_ids.to_pylist()
        assert (sorted(artworks[:5]), sorted(artworks[5:])) == (sorted(ids[:5]), sorted(ids[5:]))
        assert other.contents.to_pylist() == [f"caption of {each}" for each in artworks]
        orders.append(artworks)
    assert len({tuple(order[5:]) for order in orders}) == 29
    # The first of five reaches every position; that it never reaches one has a chance of 0.8^29 = 0.2 %.
    assert {order.index("a0") for order in orders} == set(range(5))
    assert permuted(catalog, 7).artwork_ids.to_pylist() == orders[6]


def _one_title(tmp_path: Path, artworks: list[dict]) -> tuple[list[str], list[str]]:
    titles = _write(tmp_path / "t", [{"title_id": "a", "name": "A", "genres": []}], "titles")
    return [titles], [_write(tmp_path / "a", artworks, "artworks")]


def test_ids_alone_need_no_captions(tmp_path: Path) -> None:
    titles, artworks = _one_title(tmp_path, [{"artwork_id": "1", "title_id": "a"}])
    catalog, invalid = read_catalog(titles, artworks, assets=None)
    assert (catalog.artwork_ids.to_pylist(), catalog.contents.to_pylist(), invalid.num_rows) == (["1"], ["1"], 0)


@pytest.mark.usefixtures("ray_cluster")
def test_artwork_with_an_unusable_image_is_invalid(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/1.png").write_bytes(draw(np.array([0.5, 0.5])))
    rows = [{"artwork_id": str(n), "title_id": "a", "image_uri": f"images/{n}.png"} for n in (2, 1)]
    rows.append({"artwork_id": "3", "title_id": "a", "image_uri": ""})
    titles, artworks = _one_title(tmp_path, rows)
    catalog, invalid = read_catalog(titles, artworks, assets="image", image_roots=[str(tmp_path)])
    assert catalog.artwork_ids.to_pylist() == ["1"]
    assert catalog.contents.to_pylist() == [f"{tmp_path}/images/1.png"]
    assert [(row["artwork_id"], row["column"], row["reason"]) for row in invalid.to_pylist()] == [
        ("3", "image_uri", "missing"),
        ("2", "image_uri", "no file there"),
    ]


@pytest.mark.usefixtures("ray_cluster")
def test_each_image_has_its_location_or_its_fault_in_the_order_of_the_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TASK_IMAGES", 2)
    monkeypatch.setattr(module, "_PROGRESS_SECONDS", 0.0)
    (tmp_path / "good.png").write_bytes(draw(np.array([0.5, 0.5])))
    (tmp_path / "bad.png").write_bytes(b"not an image")
    signed = "s3://bucket/a.png?endpoint_override=elsewhere"
    uris = ["good.png", "bad.png", "gone.png", str(tmp_path / "good.png"), signed]
    location = f"{tmp_path}/good.png"
    assert module.validate_images(uris, [str(tmp_path)]) == [
        (location, ""),
        ("bad.png", images.UNKNOWN_FORMAT),
        ("gone.png", image_files.MISSING_FILE),
        (location, ""),
        (signed, image_files.SETTINGS),
    ]
    assert "images: 4 of 5 validated" in (printed := capsys.readouterr().out)
    assert "images: 3 of 5 are unusable" in printed


def test_unreadable_file_is_tried_again_and_an_absent_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    faults = [image_files.TRANSIENT, image_files.TRANSIENT]

    def fetch(uri: str) -> bytes:
        if faults:
            raise image_files.UnusableError(faults.pop())
        return draw(np.array([1.0]))

    monkeypatch.setattr(module, "fetch", fetch)
    assert module._validate([str(tmp_path)], "a.png") == (f"{tmp_path}/a.png", "")
    assert waits == [1.0, 4.0]
    faults += [image_files.TRANSIENT] * 3
    assert module._validate([str(tmp_path)], "a.png") == ("a.png", image_files.TRANSIENT)
    faults.append(image_files.MISSING_FILE)
    assert module._validate([str(tmp_path)], "a.png") == ("a.png", image_files.MISSING_FILE)
    assert waits == [1.0, 4.0] * 2
