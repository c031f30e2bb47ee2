"""A head that starts from a trained one with another backbone and other classes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, RTDetrResNetConfig, RTDetrV2Config, RTDetrV2ForObjectDetection

from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import TASKS
from dense_prediction.models.backbones import build_backbone
from dense_prediction.models.building import build_model
from dense_prediction.models.heads import find_head, head_names
from dense_prediction.models.options import BackboneOptions, HeadOptions
from dense_prediction.models.warm_start import start_from
from miniature_heads import FIELDS, LABELS


TRAINED_LABELS = ["Car", "tree", "traffic_light", "DOG", "lamp"]
WIDER = {"trunk_config": {"model_args": {"embed_dim": 64}}}


def build(name: str, backbone_file: Path, labels: list[str] = LABELS, **options: Any) -> PreTrainedModel:
    backbone = BackboneOptions(config=str(backbone_file), overrides=options.pop("overrides", {}))
    recipe, head = HeadOptions(**{"name": name, "config": FIELDS[name]} | options), find_head(name)
    model = build_model(recipe, build_backbone(backbone, head.out_features), labels, TASKS[head.tasks[0]])
    if recipe.checkpoint is not None:
        start_from(model, head, recipe.checkpoint)
    return model


def save_trained(name: str, folder: Path, backbone_file: Path, **options: Any) -> PreTrainedModel:
    """A model in which every number is another one, in place of training."""
    torch.manual_seed(1)
    model = build(name, backbone_file, TRAINED_LABELS, **options)
    with torch.no_grad():
        for tensor in [*model.parameters(), *(each for each in model.buffers() if each.is_floating_point())]:
            tensor.add_(torch.rand_like(tensor))
    model.save_pretrained(folder)
    return model


def head_tensors(model: PreTrainedModel, name: str) -> dict[str, torch.Tensor]:
    """What was learnt outside the backbone."""
    backbone = find_head(name).entry.backbone
    statistics = {key: value for key, value in model.named_buffers() if ".running_" in key}
    learnt = dict(model.named_parameters()) | statistics
    return {key: value.detach() for key, value in learnt.items() if not key.startswith(f"{backbone}.")}


@pytest.mark.parametrize("name", head_names())
def test_what_fits_is_taken_over(
    name: str, backbone_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = head_tensors(save_trained(name, tmp_path, backbone_file, overrides=WIDER), name)
    torch.manual_seed(0)
    plain = build(name, backbone_file)
    torch.manual_seed(0)
    warm = build(name, backbone_file, checkpoint=str(tmp_path))
    before, after = head_tensors(plain, name), head_tensors(warm, name)
    whole = by_class = 0
    for key, tensor in after.items():
        if tensor.shape == trained[key].shape:
            assert torch.equal(tensor, trained[key]), key
            whole += 1
        elif len(tensor) in (3, 4) and len(tensor) + 2 == len(trained[key]):
            assert torch.equal(tensor[0], before[key][0]), f"{key}: no sky was learnt"
            assert torch.equal(tensor[1], trained[key][3]), f"{key}: dog"
            assert torch.equal(tensor[2], trained[key][0]), f"{key}: car"
            assert torch.equal(tensor[3:], trained[key][5:]), f"{key}: no object"
            by_class += 1
        else:
            assert torch.equal(tensor, before[key]), f"{key}: it is as wide as the backbone"
    assert by_class > 0 and len(after) / 2 < whole < len(after) - by_class
    backbone = find_head(name).entry.backbone
    untouched = plain.get_submodule(backbone).state_dict()
    for key, tensor in warm.get_submodule(backbone).state_dict().items():
        assert torch.equal(tensor, untouched[key]), f"{key}: the backbone stays as it is"
    assert f"head.checkpoint={tmp_path}: " in caplog.text and "class layers the rows of dog, car" in caplog.text


def test_classes_of_the_same_number_are_told_apart_by_their_names(backbone_file: Path, tmp_path: Path) -> None:
    trained = save_trained("detr", tmp_path, backbone_file)
    labels = ["lamp", "unknown", "car", "dog", "bus"]
    warm = build("detr", backbone_file, labels, checkpoint=str(tmp_path)).class_labels_classifier.weight
    old = trained.class_labels_classifier.weight
    assert [index for index in range(6) if any(torch.equal(warm[index], row) for row in old)] == [0, 2, 3, 5]
    assert torch.equal(warm[[0, 2, 3, 5]], old[[4, 0, 3, 5]])


def test_a_published_model_with_a_resnet(backbone_file: Path, tmp_path: Path) -> None:
    """As transformers itself builds and saves one."""
    resnet = RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        out_features=["stage2", "stage3", "stage4"],
    )
    fields = FIELDS["rt_detr_v2"] | {"num_feature_levels": 3, "decoder_in_channels": [32] * 3}
    config = RTDetrV2Config(backbone_config=resnet, encoder_in_channels=[16, 24, 32], num_labels=2, **fields)
    published = RTDetrV2ForObjectDetection(config)
    published.save_pretrained(tmp_path)
    warm = build("rt_detr_v2", backbone_file, checkpoint=str(tmp_path))
    key = "model.decoder.layers.1.encoder_attn.value_proj.weight"
    assert torch.equal(warm.get_parameter(key), published.get_parameter(key))


def test_what_a_training_reads_of_it(backbone_file: Path, tmp_path: Path) -> None:
    """The weights of a loss are the recipe's, whatever the trained model had."""
    fields = FIELDS["mask2former"] | {"no_object_weight": 0.7}
    save_trained("mask2former", tmp_path, backbone_file, config=fields)
    warm = build("mask2former", backbone_file, TRAINED_LABELS, checkpoint=str(tmp_path))
    assert warm.criterion.empty_weight[-1] == pytest.approx(0.1)


def test_what_cannot_be_taken_over(backbone_file: Path, tmp_path: Path) -> None:
    save_trained("detr", tmp_path / "detr", backbone_file)
    with pytest.raises(UserError, match="detr is a detr, and head.name is that of a rt_detr: give a trained model of"):
        build("rt_detr", backbone_file, checkpoint=str(tmp_path / "detr"))
    with pytest.raises(UserError, match="head.checkpoint=.*nowhere cannot be loaded"):
        build("rt_detr", backbone_file, checkpoint=str(tmp_path / "nowhere"))
    (tmp_path / "detr" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="head.checkpoint=.*detr cannot be loaded"):
        build("detr", backbone_file, checkpoint=str(tmp_path / "detr"))
