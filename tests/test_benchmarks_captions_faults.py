"""Broken files of NoCaps and Flickr30K: each error names file, record, field and what was found."""

import copy

import pytest
from benchmark_data import RECORDED, write
from caption_data import flickr_rows, flickr_tables, nocaps_rows, nocaps_tables, read

from eval.errors import DataError


def image(**change):
    return lambda content: content["images"][1].update(change)


def annotation(**change):
    return lambda content: content["annotations"][-1].update(change)


def only_one_image_annotated(content):
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] == 7]


@pytest.mark.parametrize(
    ("name", "layout", "change", "message"),
    [
        ("nocaps_val", 0, image(id="x"),
         r"images\[1\] of .*_captions\.json: field 'id': an integer from 0 expected, 'x' found"),
        ("nocaps_val", 0, image(id=0), "'0' found again at sample 1"),
        ("nocaps_val", 0, image(open_images_id="../../etc/passwd"),
         "field 'open_images_id': a string like"),
        ("nocaps_val", 0, image(domain="test"), "field 'domain': a string like"),
        ("nocaps_val", 0, annotation(caption=3),
         r"annotations\[19\] of .*: field 'caption': a string expected, 3 found"),
        ("nocaps_val", 0, annotation(image_id=None), "field 'image_id': an identifier expected"),
        ("nocaps_val", 0, only_one_image_annotated,
         r"images\[0\] of .*: captions expected, none found"),
        ("nocaps_val", 0, lambda content: content.pop("annotations"),
         "field 'annotations': a list expected, nothing found"),
        ("nocaps_val", 1, image(image="/a/../0123456789abcdef.jpg"),
         r"images\[1\] of .*nocaps_val\.json: field 'image': a relative path"),
        ("nocaps_val", 1, image(image="data/nocaps/images/1.jpg"), "a path that ends like"),
        ("nocaps_test", 0, image(open_images_id=7), "field 'open_images_id': a string expected"),
        ("flickr30k_test", 0, image(filename="../1.jpg"),
         r"images\[1\] of .*flickr30k\.json: field 'filename': a string like"),
        ("flickr30k_test", 0, image(filename="42.jpg"), "'42' found again at sample 1"),
        ("flickr30k_test", 0, image(sentences=[]), "captions expected, none found"),
        ("flickr30k_test", 0, image(sentences=[{"raw": 1}]), "field 'raw': a string expected"),
        ("flickr30k_test", 0, image(split=None), "field 'split': a string expected, null found"),
        ("flickr30k_test", 1, image(id=1234567890),
         "field 'id': the number of its image expected, 1234567890 found"),
        ("flickr30k_test", 1, image(image="flickr30k/1.jpg"), "a path that ends like flickr30k-im"),
    ],
)  # fmt: skip
def test_a_wrong_record_is_an_error_that_names_it(tmp_path, name, layout, change, message):
    """File, record, field, what was expected and what was found."""
    files = copy.deepcopy(RECORDED[name]["layouts"][layout])
    (content,) = files.values()
    change(content)
    write(tmp_path, files)
    with pytest.raises(DataError, match=message):
        read(name, tmp_path)


def test_a_wrong_row_of_a_mirror_is_an_error_that_names_it(tmp_path):
    """Tables are checked like files: the number of the row stands in the message."""
    rows = nocaps_rows("val")
    rows[1]["image_open_images_id"] = "short"
    nocaps_tables(tmp_path, "val", rows)
    with pytest.raises(DataError, match=r"row 1 of .*validation-\*\.parquet: field 'image_open_im"):
        read("nocaps_val", tmp_path)
    rows = flickr_rows()
    rows[1]["filename"] = "a/../1.jpg"
    flickr_tables(tmp_path, rows)
    with pytest.raises(DataError, match=r"row 1 of .*parquet: field 'filename'"):
        read("flickr30k_test", tmp_path)
