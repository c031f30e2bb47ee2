"""What a card reads of the files with results."""

import json
from pathlib import Path

from dense_prediction.hub.result_files import Row, read_result, summarize


def write(path: Path, **metrics: object) -> Path:
    path.write_text(json.dumps({"name": "mine", "split": "test", "metrics": metrics}))
    return path


def test_numbers_of_another_limit_keep_their_name(tmp_path: Path) -> None:
    """COCO's are those of 100 detections; the others are shown as what they are, and never taken for COCO's."""
    limited = {"box_ap_at_300": 0.5, "box_ar300": 0.7, "class_box_ap_at_300": {"cat": 0.5}}
    result = read_result(write(tmp_path / "a.json", **limited))
    assert result.classes == ["cat"]
    assert summarize([result]) == [Row("box_ap_at_300", "box AP of at most 300 detections", 0.5, 0.5, 0.5, 0.5)]
    plain = read_result(write(tmp_path / "b.json", box_ap=0.4, class_box_ap={"cat": 0.4}))
    assert summarize([plain]) == [Row("box_ap", "box AP", 0.4, 0.4, 0.4, 0.4)]
    assert summarize([result, plain]) == []
    assert summarize([]) == []
