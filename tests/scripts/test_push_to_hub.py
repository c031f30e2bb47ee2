"""`scripts/push_to_hub.py` against a Hub of our own: what goes up, in which order, and what it refuses."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, constants
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, ResNetBackbone, ResNetConfig, SegformerImageProcessor, ViTImageProcessor

import modeling_vit_comer
import push_to_hub
import tiny
from dense_prediction import command_line
from dense_prediction.errors import UserError
from dense_prediction.recipes.loading import load_recipe
from hub import TOKEN, Hub, Repository, serve
from modeling_vit_comer import ViTCoMerBackbone
from test_heads import HEADS
from tiny import tiny_config


REPOSITORY = "org/vit-comer-tiny"
CODE = {
    "configuration_vit_comer.py",
    "deformable_attention.py",
    "function_transforms.py",
    "heads.py",
    "initialization.py",
    "interaction.py",
    "kernel_choice.py",
    "modeling_vit_comer.py",
    "own_forwards.py",
    "presets.py",
    "relative_positions.py",
    "spatial_pyramid.py",
    "timm_embeddings.py",
    "timm_layers.py",
    "timm_trunks.py",
    "transformers_embeddings.py",
    "transformers_trunks.py",
    "trunk.py",
    "trunk_parts.py",
    "trunk_shapes.py",
    "trunk_sources.py",
    "watchers.py",
}
FILES = CODE | {"config.json", "model.safetensors", "preprocessor_config.json", "LICENSE", "README.md"}
FILES |= {"measured.json"}
WRITTEN = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: image-feature-extraction
---

# Written by hand
"""
RESULTS = {
    "name": "semantic_segmentation/roads/upernet",
    "task": "semantic_segmentation",
    "seed": 7,
    "step": 6,
    "seconds": 12.34,
    "best_step": 4,
    "curve": [{"step": 6, "loss": 0.5, "learning_rate": 0.0}],
    "evaluations": [
        {"step": 4, "mean_iou": 0.43217, "pixel_accuracy": None, "class_iou": {"road": 0.8, "sky": 0.06434}},
        {"step": 6, "mean_iou": 0.1, "pixel_accuracy": 0.2, "class_iou": {"road": 0.1, "sky": 0.1}},
    ],
    "device": "cpu x86_64, 2 threads",
    "versions": {"torch": "2.15.0", "transformers": "5.23.0"},
    "recipe": {
        "data": {"path": "data/roads"},
        "backbone": {"freeze_trunk": False},
        "optimization": {"learning_rate": 5e-05, "trunk_lr_multiplier": 0.1},
    },
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub without repositories, which is huggingface_hub's for the test."""
    hub = Hub()
    with serve(hub) as endpoint:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", "no such file")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "*")
        yield hub


def save(model: PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    ViTImageProcessor(do_resize=False).save_pretrained(folder)
    return folder


@pytest.fixture
def backbone() -> ViTCoMerBackbone:
    torch.manual_seed(0)
    return ViTCoMerBackbone(tiny_config())


@pytest.fixture
def folder(backbone: ViTCoMerBackbone, tmp_path: Path) -> Path:
    return save(backbone, tmp_path / "backbone")


def push(folder: Path, *arguments: str, repository: str = REPOSITORY) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["push_to_hub.py", str(folder), repository, *arguments])
        push_to_hub.main()


def run(command: list[str], folder: Path) -> str:
    """What a process prints whose Hub is that of the test."""
    paths = [str(Path(file).parent) for file in (modeling_vit_comer.__path__[0], tiny.__file__)]
    environment = os.environ | {"HF_ENDPOINT": constants.ENDPOINT, "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    environment |= {"HF_HOME": str(folder / "home"), "PYTHONPATH": os.pathsep.join(paths)}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def repository_of(hub: Hub, name: str = REPOSITORY) -> Repository:
    return hub.repositories[f"models/{name}"]


def content(hub: Hub, path: str, branch: str = "main") -> bytes:
    return hub.blobs[repository_of(hub).files(branch)[path]]


def test_command(hub: Hub, folder: Path, tmp_path: Path) -> None:
    """As a person calls it."""
    output = run([sys.executable, push_to_hub.__file__, str(folder), REPOSITORY, "--private"], tmp_path)
    repository = repository_of(hub)
    assert output.splitlines()[-1] == f"{constants.ENDPOINT}/{REPOSITORY}/commit/{repository.branches['main']}"
    assert repository.private and len(repository.commits) == 2
    assert repository.files().keys() - {".gitattributes"} == FILES
    assert b"Apache License" in content(hub, "LICENSE")
    card = ModelCard(content(hub, "README.md").decode())
    assert card.data.license == "apache-2.0" and card.data.library_name == "transformers"
    assert f'AutoBackbone.from_pretrained("{REPOSITORY}"' in card.text
    facts = json.loads(content(hub, "measured.json"))
    assert f"{facts['parameters']:,}" in card.text and "No results come with these weights" in card.text


def test_dry_run_lists_what_goes_up(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.delenv("HF_TOKEN")
        push(folder, "--dry-run")
    assert not hub.requests
    listed = capsys.readouterr().out.splitlines()
    assert listed[-1] == "dry run: nothing was sent"
    push(folder)
    sizes = {path: len(hub.blobs[oid]) for path, oid in repository_of(hub).files().items() if path in FILES}
    assert listed[:-2] == [f"{size:>15,}  {name}" for name, size in sorted(sizes.items())]
    assert listed[-2].split() == [f"{sum(sizes.values()):,}", "bytes", "in", str(len(FILES)), "files"]


def test_only_update_changes_what_is_there(hub: Hub, folder: Path) -> None:
    push(folder)
    before = repository_of(hub).branches["main"]
    with pytest.raises(UserError, match=f"{REPOSITORY} is there already.*--update"):
        push(folder)
    assert repository_of(hub).branches["main"] == before


def test_a_version_leaves_nothing_behind(hub: Hub, folder: Path) -> None:
    """Weights of the version before, in one file, would be loaded instead of the new ones in several."""
    push(folder)
    repository = repository_of(hub)
    repository.commit("main", repository.files() | {"old_code.py": hub.store(b"")})
    push(folder, "--update", "--max-shard-size", "200KB")
    weights = sorted(path for path in repository.files() if path.startswith("model"))
    assert weights[0].startswith("model-00001-of-0000") and weights[-2:] == [
        "model.safetensors.index.json",
        "modeling_vit_comer.py",
    ]
    assert "model.safetensors" not in weights and "old_code.py" not in repository.files()
    push(folder, "--update")
    assert repository.files().keys() - {".gitattributes"} == FILES


def test_cards(hub: Hub, folder: Path, tmp_path: Path) -> None:
    """One that somebody wrote is never replaced by ours."""
    (tmp_path / "card.md").write_text(WRITTEN)
    push(folder)
    push(folder, "--update", "--card", str(tmp_path / "card.md"))
    assert content(hub, "README.md").decode() == WRITTEN
    push(folder, "--update", "--max-shard-size", "200KB")
    assert content(hub, "README.md").decode() == WRITTEN
    (folder / "README.md").write_text(WRITTEN + "In the folder.\n")
    push(folder, "--update")
    assert content(hub, "README.md").decode() == WRITTEN + "In the folder.\n"


def test_a_card_brings_the_files_that_it_links_to(hub: Hub, folder: Path, tmp_path: Path) -> None:
    """But none from elsewhere, and none in place of the model's own."""
    (tmp_path / "cards" / "results").mkdir(parents=True)
    (tmp_path / "cards" / "results" / "speed.json").write_text('{"seconds": 1.25}')
    (tmp_path / "cards" / "config.json").write_text("{}")
    card = tmp_path / "cards" / "card.md"
    card.write_text(WRITTEN + "It takes 1.25 s ([file](results/speed.json), [config](config.json)).\n")
    push(folder, "--card", str(card))
    assert json.loads(content(hub, "results/speed.json")) == {"seconds": 1.25}
    assert json.loads(content(hub, "config.json"))["model_type"] == "vit_comer"
    (tmp_path / "secret.json").write_text("{}")
    card.write_text(WRITTEN + "[file](../secret.json)\n")
    with pytest.raises(UserError, match=r"the link '../secret.json' leads to no file"):
        push(folder, "--update", "--card", str(card))


def test_a_faulty_card_is_refused(hub: Hub, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is sent, with a line for each fault."""
    (tmp_path / "card.md").write_text(WRITTEN.replace("license:", "licence:") + "[here](#there)\n")
    arguments = ["push_to_hub.py", str(folder), REPOSITORY, "--card", str(tmp_path / "card.md")]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", arguments)
        command_line.run(push_to_hub.main)
    assert ended.value.code == 1 and not hub.requests
    error, *faults = capsys.readouterr().err.splitlines()[-4:]
    assert error == f"error: the card {tmp_path / 'card.md'} has faults, and nothing was sent:"
    assert faults == [
        "metadata: the Hub does not know the key 'licence'; did you mean license or license_name?",
        "metadata: license is missing; for example apache-2.0, mit, openrail",
        "line 8: the link '#there' leads to no heading; there are written-by-hand",
    ]


def test_interrupted_upload_goes_on(hub: Hub, folder: Path) -> None:
    arguments = ("--max-shard-size", "100KB")
    hub.refuse_uploads = lambda size: len(hub.uploaded()) > 2
    with pytest.raises(UserError, match="interrupted.*run the same command again"):
        push(folder, *arguments)
    assert repository_of(hub).files().keys() == {".gitattributes"}
    arrived = {oid for oid in hub.uploaded() if oid in hub.blobs}
    assert arrived
    hub.refuse_uploads = lambda size: False
    hub.requests.clear()
    push(folder, *arguments)
    shards = {oid for path, oid in repository_of(hub).files().items() if path.endswith(".safetensors")}
    assert set(hub.uploaded()) == shards - arrived != set()


def test_revision_and_pull_request(hub: Hub, folder: Path, capsys: pytest.CaptureFixture) -> None:
    push(folder, "--revision", "experiment")
    repository = repository_of(hub)
    assert repository.files("experiment").keys() >= FILES
    assert repository.files().keys() == {".gitattributes"}
    push(folder, "--create-pr")
    assert repository.files("refs/pr/1").keys() >= FILES
    assert repository.files().keys() == {".gitattributes"}
    assert capsys.readouterr().out.splitlines()[-1].endswith("/discussions/1")


def test_trained_model(hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What `train.py` leaves: a head, its processor, and the results beside the folder."""
    model = HEADS["upernet"].build()
    folder = tmp_path / "best_model"
    model.save_pretrained(folder)
    SegformerImageProcessor().save_pretrained(folder)
    local = RESULTS | {"recipe": RESULTS["recipe"] | {"output": str(tmp_path), "data": {"path": "/data/roads"}}}
    (tmp_path / "results.json").write_text(json.dumps(local))
    push(folder)
    written = {"configuration_heads.py", "results.json", "recipe.yaml"}
    assert repository_of(hub).files().keys() - {".gitattributes"} == FILES | written
    assert "which licence the data roads have: give --data-license NAME" in caplog.text
    public = RESULTS | {"recipe": RESULTS["recipe"] | {"output": tmp_path.name, "data": {"path": "roads"}}}
    assert json.loads(content(hub, "results.json")) == public
    config = json.loads(content(hub, "config.json"))
    assert config["auto_map"] == {"AutoConfig": "configuration_heads.UperNetConfig"}
    assert config["model_type"] == "upernet"
    card = ModelCard(content(hub, "README.md").decode())
    assert card.data.pipeline_tag == "image-segmentation"
    (measured,) = card.data.eval_results
    assert (measured.metric_type, measured.metric_value, measured.dataset_name) == ("mean_iou", 0.4322, "roads")
    assert "| mean IoU | 0.4322 |" in card.text and "these classes only: `road`, `sky`." in card.text
    assert "its learning rate was 0.1 times that of everything else, 5e-05" in card.text
    assert "| class | IoU |\n|---|---|\n| `road` | 0.8000 |\n| `sky` | 0.0643 |\n" in card.text
    assert "Nobody said which licence the data have, roads." in " ".join(card.text.split())


def test_the_card_of_a_run_names_its_own_recipe(hub: Hub, tmp_path: Path) -> None:
    """Which is that it started from, and all that was changed; whoever has it repeats the run."""
    changes = ["training.steps=70", "data.path=/data/roads", "backbone.trunk_weights=/weights/vit.safetensors"]
    started_from = "semantic_segmentation/camvid/upernet_vit-comer-s_dinov2"
    recipe = load_recipe(started_from, [*changes, "output=/runs/roads"])
    folder = save(HEADS["upernet"].build(), tmp_path / "best_model")
    results = RESULTS | {"name": recipe.name, "recipe": dataclasses.asdict(recipe)}
    (tmp_path / "results.json").write_text(json.dumps(results))
    push(folder, "--data-license", "cc-by-4.0, for a|all")
    text = ModelCard(content(hub, "README.md").decode()).text
    assert "The recipe is [recipe.yaml](recipe.yaml): 6 steps" in text and started_from not in text
    assert "vit-comer train recipe.yaml data.path=FOLDER backbone.trunk_weights=FILE\n" in text
    assert "The data, roads: cc-by-4.0, for a|all." in text
    (tmp_path / "recipe.yaml").write_bytes(content(hub, "recipe.yaml"))
    again = load_recipe(tmp_path / "recipe.yaml", changes)
    assert dataclasses.replace(again, name=recipe.name, output=recipe.output) == recipe
    assert b"/data" not in content(hub, "recipe.yaml") and b"/runs" not in content(hub, "recipe.yaml")


def test_classes_of_any_name_and_without_a_number(hub: Hub, tmp_path: Path) -> None:
    numbers = {"a | b": 0.5, "the `tick`": None, "line\nbreak": 0.25}
    evaluations = [{"step": 4, "mask_ap": 0.5, "class_mask_ap": numbers, "class_box_ap": dict.fromkeys(numbers, 1.0)}]
    folder = save(HEADS["upernet"].build(), tmp_path / "best_model")
    (tmp_path / "results.json").write_text(json.dumps(RESULTS | {"evaluations": evaluations}))
    push(folder)
    text = ModelCard(content(hub, "README.md").decode()).text
    rows = ["| class | mask AP | box AP |", "|---|---|---|", "| `a \\| b` | 0.5000 | 1.0000 |"]
    rows += ["| `the 'tick'` | – | 1.0000 |", "| `line break` | 0.2500 | 1.0000 |"]
    assert "\n".join(rows) in text


@pytest.mark.parametrize(
    ("head", "side", "libraries"),
    [("rt_detr_v2", "64", "timm pillow"), ("mask2former", "32", "timm pillow scipy"), ("detr", "32", "timm pillow")],
)
def test_what_the_card_says_of_the_head(hub: Hub, tmp_path: Path, head: str, side: str, libraries: str) -> None:
    """RT-DETR's own smallest image, and what transformers asks for when it loads Mask2Former."""
    model = HEADS[head].build()
    if head == "rt_detr_v2":
        model.config.num_queries = 22  # an image of 32 x 32 pixels has 21 positions
    push(save(model, tmp_path / "model"))
    text = ModelCard(content(hub, "README.md").decode()).text
    assert f"Images need at least {side} pixels on each side" in text
    assert f'pip install "torch>=2.11" "transformers>=5.23" {libraries}\n' in text


PUSH_BY_METHOD = f"""
from modeling_vit_comer import ViTCoMerBackbone
from modeling_vit_comer.configuration_heads import carry_code
from test_heads import HEADS
from tiny import tiny_config

ViTCoMerBackbone(tiny_config()).push_to_hub("{REPOSITORY}")
model = HEADS["detr"].build()
carry_code(model)
model.push_to_hub("org/detr")
"""


def test_push_to_hub_methods(hub: Hub, tmp_path: Path) -> None:
    """Of our classes, and of transformers' own after one call."""
    run([sys.executable, "-c", PUSH_BY_METHOD], tmp_path)
    assert repository_of(hub).files().keys() >= CODE | {"config.json", "model.safetensors", "README.md"}
    assert json.loads(content(hub, "config.json"))["auto_map"].keys() == {"AutoConfig", "AutoModel", "AutoBackbone"}
    assert repository_of(hub, "org/detr").files().keys() >= CODE | {"configuration_heads.py", "model.safetensors"}


@pytest.mark.parametrize("trunk", ["vit_small_patch16_dinov3", "vit_tiny_patch16_224"])
def test_licence(hub: Hub, tmp_path: Path, trunk: str) -> None:
    """Weights from DINOv3 stay under its licence, whose text goes along."""
    model_args = {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2}
    trunk_config = {"model_type": "timm_wrapper", "architecture": trunk, "model_args": model_args}
    folder = save(ViTCoMerBackbone(tiny_config(trunk_config=trunk_config)), tmp_path / "backbone")
    (tmp_path / "DINOV3").write_text("the licence of DINOv3")
    if "dinov3" in trunk:
        with pytest.raises(UserError, match="inherit its licence: give --license dinov3-license"):
            push(folder)
    push(folder, "--license", "dinov3-license", "--license-file", str(tmp_path / "DINOV3"))
    assert content(hub, "LICENSE") == b"the licence of DINOv3"
    data = ModelCard(content(hub, "README.md").decode()).data
    assert (data.license, data.license_name) == ("other", "dinov3-license")


def remove_processor(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


def drop_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("upsample.bias")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def cut_weights_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def save_another_model(folder: Path) -> None:
    ResNetBackbone(ResNetConfig(depths=[1], hidden_sizes=[8], embedding_size=8)).save_pretrained(folder)


def save_another_backbone(folder: Path) -> None:
    config = ResNetConfig(depths=[1, 1, 1, 1], hidden_sizes=[8] * 4, embedding_size=8, out_indices=[1, 2, 3, 4])
    model = HEADS["upernet"].build()
    type(model)(type(model.config)(backbone_config=config, hidden_size=16)).save_pretrained(folder)


def write_bad_card(folder: Path) -> None:
    (folder / "README.md").write_text("no metadata")


def write_bad_results(folder: Path) -> None:
    (folder / "results.json").write_text('{"step": 6}')


def write_unevaluated_results(folder: Path) -> None:
    (folder / "results.json").write_text(json.dumps(RESULTS | {"best_step": None, "evaluations": []}))


def write_other_licence(folder: Path) -> None:
    (folder / "README.md").write_text(WRITTEN.replace("apache-2.0", "mit"))


def nothing(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        (remove_processor, [], "has no preprocessor_config.json"),
        (drop_a_weight, [], "do not fit its config: missing_keys.*upsample.bias"),
        (cut_weights_off, [], "cannot load the model"),
        (save_another_model, [], "ResNetBackbone, which is no model round a ViT-CoMer"),
        (save_another_backbone, [], "has no ViT-CoMer backbone"),
        (write_bad_card, [], "metadata: the card must begin with a YAML block"),
        (write_bad_results, [], "is no result of train.py or evaluate.py: it has no name, seed, "),
        (write_unevaluated_results, [], "the run has evaluated nothing yet, its best_step is None"),
        (write_other_licence, [], "the licence is mit, but LICENSE is that of apache-2.0: give --license and"),
        (nothing, ["--card", "nowhere.md"], "--card: there is no file nowhere.md"),
        (nothing, ["--results", "nowhere.json"], "--results: there is no file nowhere.json"),
        (nothing, ["--license", "mit"], "give --license NAME and --license-file"),
        (nothing, ["--license", "mit", "--license-file", "nowhere"], "there is no file nowhere"),
        (nothing, ["--max-shard-size", "much"], "--max-shard-size much"),
        (nothing, ["--revision", "a", "--create-pr"], "leave out --revision or --create-pr"),
        (nothing, ["--create-pr"], f"there is no {REPOSITORY}"),
    ],
)
def test_mistakes(hub: Hub, folder: Path, spoil, arguments: list[str], message: str) -> None:
    spoil(folder)
    with pytest.raises(UserError, match=message):
        push(folder, *arguments)
    repositories = hub.repositories.values()
    assert all(repository.files().keys() == {".gitattributes"} for repository in repositories)


@pytest.mark.parametrize(
    ("repository", "token", "message"),
    [
        ("org/name", None, "no token of the Hub: log in with `hf auth login`"),
        ("org/name", "hf_wrong", "does not accept the token"),
        ("others/name", TOKEN, "may not write to others/name"),
        ("a/b/c", TOKEN, "'a/b/c'"),
    ],
)
def test_refusals_of_the_hub(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, repository: str, token: str | None, message: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token or "")
    with pytest.raises(UserError, match=message):
        push(folder, repository=repository)
    assert not hub.repositories


@pytest.mark.parametrize("offline", [False, True])
def test_no_network(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, offline: bool) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(UserError, match="cannot reach http://127.0.0.1:9"):
        push(folder)
