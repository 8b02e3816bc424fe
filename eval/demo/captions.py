"""The demo's Flickr30K and NoCaps: sentences about scenes of shapes."""

from typing import Any

from eval.demo.questions import paraphrases, sentence
from eval.demo.writer import LICENSE, SIZES, Writer, picture_id, words

DOMAINS = {"in-domain": 20, "near-domain": 15, "out-domain": 10}


def draw_flickr30k(writer: Writer) -> None:
    """Karpathy's file; a few pictures belong to the other two splits."""
    images: list[dict[str, Any]] = []
    splits = ["train"] * 6 + ["val"] * 3 + ["test"] * SIZES["flickr30k_test"]
    for number, (split, (scene, _, _)) in enumerate(
        zip(splits, writer.scenes("shapes"), strict=False)
    ):
        filename = f"{1000092795 + 7919 * number}.jpg"
        writer.image(f"flickr30k/flickr30k-images/{filename}", scene)
        ids = list(range(5 * number, 5 * number + 5))
        sentences = [
            {"tokens": words(text), "raw": sentence(text), "imgid": number, "sentid": i}
            for i, text in zip(ids, paraphrases(scene), strict=True)
        ]
        images.append(
            {
                "sentids": ids,
                "imgid": number,
                "sentences": sentences,
                "split": split,
                "filename": filename,
            }
        )
    content = {"images": images, "dataset": "flickr30k"}
    writer.json("flickr30k/dataset_flickr30k.json", content)


def draw_nocaps(writer: Writer) -> None:
    """Ten sentences a picture; test's are known to the server alone. The domains are names only."""
    domains = [domain for domain, count in DOMAINS.items() for _ in range(count)]
    for split in ("val", "test"):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        truth: dict[str, list[str]] = {}
        size = SIZES[f"nocaps_{split}"]
        for number, (scene, _, _) in zip(range(size), writer.scenes("shapes"), strict=False):
            name = picture_id("nocaps", scene)
            writer.image(f"nocaps/images/{name}.jpg", scene)
            images.append(
                {
                    "license": 0,
                    "file_name": f"{name}.jpg",
                    "coco_url": f"https://images.invalid/{name}.jpg",
                    "open_images_id": name,
                    "date_captured": "2026-01-01 00:00:00",
                    "height": scene.size[1],
                    "width": scene.size[0],
                    "id": number,
                    "domain": domains[number],
                }
            )
            texts = [sentence(text) for text in paraphrases(scene)] * 2
            truth[str(number)] = texts
            for text in texts:
                annotations.append({"image_id": number, "id": len(annotations), "caption": text})
        content: dict[str, Any] = {"info": {}, "licenses": [LICENSE], "images": images}
        if split == "val":
            content["annotations"] = annotations
            writer.json("nocaps/nocaps_val_4500_captions.json", content)
        else:
            writer.json("nocaps/nocaps_test_image_info.json", content)
            writer.truth("nocaps_test", truth)
