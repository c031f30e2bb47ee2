"""Use what a wheel brings, from an empty folder: train by name, predict, attach a head, load the metrics.

    python check_wheel.py SITE COMMAND

SITE is the folder the wheel is installed in, COMMAND its `vit-comer`. `try_wheel.py` calls this.
"""

import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import evaluate
import numpy as np
import torch
from PIL import Image
from transformers import AutoBackbone, AutoModel, RTDetrV2ForObjectDetection

from dense_prediction import load_model
from dense_prediction.evaluation.metrics import metric_script
from modeling_vit_comer import ViTCoMerBackbone, ViTCoMerConfig


PACKAGES = ("modeling_vit_comer", "dense_prediction", "vit_comer_commands")
RECIPE = "semantic_segmentation/synthetic_shapes/upernet_vit-comer-demo"
SHORT = [f"training.{key}=4" for key in ("steps", "batch_size", "log_every", "evaluate_every", "checkpoint_every")]


def check_place(site: Path) -> None:
    """Every module of ours comes from the wheel, and none from a checkout that is installed here as well."""
    import_module("vit_comer_commands.console")
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in PACKAGES and getattr(module, "__file__", None) is not None:
            assert Path(module.__file__).is_relative_to(site), f"{name} is not the wheel's: {module.__file__}"
    assert version("vit-comer") == import_module("modeling_vit_comer").__version__


def check_training(command: str) -> None:
    overrides = [*SHORT, "data.max_validation_samples=4", "optimization.warmup_steps=1", "output=run"]
    subprocess.run([command, "train", RECIPE, *overrides], check=True)
    assert Path("run", "results.json").is_file()


def check_prediction() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("x.jpg")
    prediction = load_model("run/best_model").predict("x.jpg")
    assert prediction["semantic_map"].shape == (96, 128)


def check_backbone() -> None:
    """A preset by its name, saved with its code, read by the Auto class that reads folders, built by the other."""
    backbone = ViTCoMerBackbone(ViTCoMerConfig.from_preset("vit-comer-demo")).eval()
    backbone.save_pretrained("backbone")
    assert Path("backbone", "modeling_vit_comer.py").is_file()
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        maps = backbone(image).feature_maps
        read = [ViTCoMerBackbone.from_pretrained("backbone"), AutoModel.from_pretrained("backbone")]
        for model in read:
            torch.testing.assert_close(model.eval()(image).feature_maps[-1], maps[-1])
        built = AutoBackbone.from_config(backbone.config)
        assert [feature_map.shape for feature_map in built(image).feature_maps] == [part.shape for part in maps]
        head = backbone.attach(RTDetrV2ForObjectDetection, num_labels=80, num_queries=10).eval()
        assert head(image).logits.shape == (1, 10, 80)


def check_metrics() -> None:
    metric = evaluate.load(metric_script("semantic_iou"))
    maps = [[[0, 1], [1, 1]]]
    assert metric.compute(predictions=maps, references=maps, num_labels=2)["mean_iou"] == 1.0
    for name in ("box_ap", "mask_ap", "pq"):
        evaluate.load(metric_script(name))


def main() -> None:
    site, command = sys.argv[1:]
    check_place(Path(site))
    check_training(command)
    check_prediction()
    check_backbone()
    check_metrics()
    check_place(Path(site))
    print("the wheel brings all that it should")


if __name__ == "__main__":
    main()
