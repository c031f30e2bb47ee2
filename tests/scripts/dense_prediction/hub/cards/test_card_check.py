"""The ten points of the card check: a good card has no fault, and each fault is found, with its place."""

import json
import shutil
from pathlib import Path

import pytest

from dense_prediction.errors import UserError
from dense_prediction.hub import trained_heads
from dense_prediction.hub.cards import rendering as repository_cards
from dense_prediction.hub.cards.card import HEAD_TEMPLATE, Dataset, rewrap, sections_of
from dense_prediction.hub.cards.check import check_card
from dense_prediction.hub.cards.numbers import KnownNumbers
from dense_prediction.hub.cards.rendering import CARDS, HEAD_FACTS, trained_head_card
from dense_prediction.hub.result_files import read_result
from dense_prediction.hub.trained_heads import Baseline, TrainedHead, read_heads, read_results


NAME = "upernet-vit-comer-demo-synthetic-shapes"
SECTIONS = sections_of(HEAD_TEMPLATE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good card, README.md, and its result files."""
    shutil.copyfile(CARDS / f"{NAME}.md", tmp_path / "README.md")
    (tmp_path / "results").mkdir()
    for name in ("demo.json", "heads.json"):
        shutil.copyfile(CARDS / "results" / name, tmp_path / "results" / name)
    return tmp_path


def faults_of(folder: Path, old: str, new: str) -> list[str]:
    """Of the good card with one change."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text.count(old) >= 1, old
    return check_card(text.replace(old, new, 1), folder, SECTIONS)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        # 1
        ("---\nlibrary_name", "library_name", "metadata: the card must begin with a YAML block"),
        ("license: apache-2.0\n", "license: apache-2.0\nlicense: mit\n", "metadata: line 4: the key 'license' is"),
        ("tags:\n", "tags: [\n", "metadata: while parsing"),
        ("library_name: transformers", "- a list", "metadata: "),
        # 2
        (
            "tags:\n",
            "base_models: a/b\ntags:\n",
            "the Hub does not know the key 'base_models'; did you mean base_model",
        ),
        # 3
        ("license: apache-2.0", "license: apache-2", "is none that the Hub knows; did you mean apache-2.0"),
        ("license: apache-2.0\n", "", "metadata: license is missing"),
        ("license: apache-2.0", "license: other\nlicense_link: LICENSE", "metadata: license other needs license_name"),
        ("license: apache-2.0", "license: other\nlicense_name: mine", "license other needs license_link, or"),
        # 4
        ("pipeline_tag: image-segmentation", "pipeline_tag: segmentation", "did you mean image-segmentation"),
        ("library_name: transformers", "library_name: tranformers", "did you mean transformers"),
        # 5
        ("value: 0.6293", "value: '0.6293'", "'mean_iou' has the value '0.6293', which is no finite"),
        ("value: 0.6293", "value: .nan", "result 0: the metric 'mean_iou' has the value nan"),
        ("value: 0.6293", "value: true", "result 0: the metric 'mean_iou' has the value True"),
        ("      split: validation\n", "", "metadata: model-index, result 0: dataset needs split"),
        ("      type: synthetic_shapes\n", "", "metadata: model-index, result 0: dataset needs type"),
        ("      type: image-segmentation\n", "", "metadata: model-index, result 0: task needs type"),
        ("- name: upernet-vit", "- model: upernet-vit", "metadata: model-index: a model needs name and results"),
        # 6
        ("tags:\n", "base_model: https://huggingface.co/a/b\ntags:\n", "metadata: base_model 'https://huggingface"),
        ("tags:\n", "datasets: [a/b, a/b/c]\ntags:\n", "metadata: datasets 'a/b/c' is no repository on the Hub"),
        # 7
        ("(results/demo.json)", "(results/dema.json)", "the link 'results/dema.json' leads to no file"),
        ("(results/demo.json)", "(../README.md)", "the link '../README.md' leads to no file"),
        ("(#how-it-is-built)", "(#how-its-built)", "the link '#how-its-built' leads to no heading; there are "),
        ("https://arxiv.org", "http://arxiv.org", "must be https"),
        ("https://arxiv.org/abs/2403.07392", "https://example.com/a", "leads to a placeholder"),
        ("[ViT-CoMer](https://arxiv", "[Vision\nTransformer](https://localhost:80/arxiv", "leads to a placeholder"),
        ("## Training", '## Training\n\n<img src="figure.png">', "the link 'figure.png' leads to no file"),
        # 8
        ("```python", "```", "the code block names no language"),
        ("for found in predict(", "for found predict(", "the Python cannot be read"),
        ("scripts/train.py", "scripts/trains.py", "there is no scripts/trains.py"),
        ("upernet_vit-comer-demo.yaml", "upernet_vit-comer-demos.yaml", "there is no configuration/recipes"),
        ("scripts/train.py", "scripts/train.py --fast", "scripts/train.py has no option --fast"),
        ("scripts/train.py", "scripts/train.py training.step=3", "no key training.step; did you mean training.steps"),
        # 9
        ("## Training", "## Training\n\n{{ name }}", "'{{' is left over from a template"),
        ("## Training", "## Training\n\nSeeds: None", "'None' is left over from a template"),
        ("## Training", "## Training\n\n[More Information Needed]", "'More Information Needed' is left over"),
        ("from PIL import Image", "from PIL import {{ image }}", "'{{ image }}' in the code is left over"),
        ("## Training", "# Training", "the card needs one title, a line with a single #, and has 2"),
        ("## Limits", "## Limit", "the section '## Limits' is missing"),
        # 10
        ("| 0.6293 |", "| 0.6294 |", "0.6294 is in no result file that the card links to (results/demo"),
        ("value: 0.6293", "value: 0.6294", "metadata: model-index, mean_iou: 0.6294 is in no result file"),
        ("1,017,189", "1,017,188", "1,017,188 is in no result file"),
        ("5.23.0", "5.23.1", "5.23.1 is in no result file"),
        ("took 92 s", "took 93s", "93 is in no result file"),
    ],
)
def test_a_fault_is_found(folder: Path, old: str, new: str, fault: str) -> None:
    assert faults_of(folder, "# ", "# ") == []
    faults = faults_of(folder, old, new)
    assert any(fault in each for each in faults), faults


def test_commands_of_every_script(folder: Path) -> None:
    """Also of those that take options or keys from elsewhere."""
    commands = """\
accelerate launch scripts/finetune_with_trainer.py RECIPE training.steps=2 --bf16 --output_dir x
python scripts/build_backbone.py --trunk=timm/x --output x 'depths=[3, 3]' \\
    drop_path_rate=0.3
HF_TOKEN=x python scripts/push_to_hub.py x org/x --dry-run  # --not-an-option
pip install --upgrade timm
"""
    assert faults_of(folder, "## Training", f"## Training\n\n```bash\n{commands}```") == []
    for good, bad in (("--bf16", "--bf17"), ("drop_path_rate", "drop_path"), ("--dry-run", "--dry"), ("'dep", "dep")):
        faults = faults_of(folder, "## Training", f"## Training\n\n```bash\n{commands.replace(good, bad)}```")
        assert len(faults) == 1, (bad, faults)


def test_places_are_lines(folder: Path) -> None:
    faults = faults_of(folder, "for found in predict(", "for found in in predict(")
    faults += faults_of(folder, "processes: 1;", "processes: 77;")
    lines = (folder / "README.md").read_text().splitlines()
    places = [int(fault.removeprefix("line ").partition(":")[0]) for fault in faults]
    assert lines[places[0] - 1] == "```python" and "processes: 1;" in lines[places[1] - 1]


@pytest.mark.parametrize(
    "index", ["3", "[3]", "{a: b}", "[{name: a, results: 3}]", "[{name: a, results: [{task: 3, metrics: {type: b}}]}]"]
)
def test_a_model_index_of_any_form(folder: Path, index: str) -> None:
    text = (folder / "README.md").read_text()
    before, after = text.index("model-index:"), text.index("---\n\n#")
    faults = check_card(f"{text[:before]}model-index: {index}\n{text[after:]}", folder)
    assert faults and all(fault.startswith("metadata: model-index") for fault in faults)


def test_any_text_is_checked(folder: Path) -> None:
    """Whatever somebody wrote, the check says something about it."""
    assert faults_of(folder, "tags:", "? [a, b]\n: c\ntags:")
    assert "must be https" in faults_of(folder, "https://arxiv", "https://[arxiv")[0]
    fine = '```inline``` code\n\n7301. None of it.\n7302. Two.\n\n```bash\npython -c "\nprint(1)\n"\n```'
    assert faults_of(folder, "## Training", f"## Training\n\n{fine}") == []
    assert check_card("", folder) and check_card("---\n---\n", folder) and check_card("```", folder)


def test_a_licence_file_is_enough(folder: Path) -> None:
    (folder / "LICENSE").write_text("mine")
    assert faults_of(folder, "license: apache-2.0", "license: other\nlicense_name: mine") == []


def test_names_code_and_links_hold_no_numbers(folder: Path) -> None:
    """And neither does a folder without results ask for any."""
    text = (
        "DINOv2, ViT-S/16, float32, ImageNet-21K, 2024_roads, `7777`, [8888](https://arxiv.org/abs/9999), Figure 6666"
    )
    assert faults_of(folder, "## Training", f"## Training\n\n{text}") == []
    assert len(faults_of(folder, "## Training", "## Training\n\n7777 of 8888-9999, 0.5-0.7777")) == 4
    assert faults_of(folder, f"# {NAME}", f"# {NAME} 9999") == []
    shutil.rmtree(folder / "results")
    card = (folder / "README.md").read_text().replace("](results/", "](https://huggingface.co/results/")
    assert check_card(card, folder) == []
    (folder / "results.json").write_text("{}")
    assert "it links to none" in check_card(card, folder)[0]


@pytest.mark.parametrize(
    ("printed", "wrong"),
    [
        ("0.33", "0.34"),
        ("0.3325", "0.3326"),
        ("0.332", "0.333"),
        ("1,234,567", "1,234,568"),
        ("-4", "-3"),
        ("1e-05", "2e-05"),
        ("15", "16"),
        ("2", "3"),
        ("2.4", "2.5"),
        ("2.15.0", "2.15.1"),
    ],
)
def test_known_numbers(printed: str, wrong: str, tmp_path: Path) -> None:
    """As many digits as are printed, and those in strings."""
    content = {"iou": [0.33249], "n": {"a": 1234567, "b": -4}, "device": "CPU x86_64 @ 2.40GHz, 2 threads"}
    content |= {"torch": "2.15.0+cu1", "rate": 1e-05, "more": 15.49, "flag": True, "none": float("nan")}
    (tmp_path / "file.json").write_text(json.dumps(content))
    known = KnownNumbers([tmp_path / "file.json"])
    assert printed in known and wrong not in known


def test_rewrap() -> None:
    """What Markdown reads as it stands is left alone."""
    wide = "a cell " * 30
    kept = f"\n# A title\n\n| a | b |\n|---|---|\n| 1 | {wide}|\n\n```sh\na  b\n\n  c\n```\n\n- an item\n- another"
    assert rewrap(kept) == kept
    assert rewrap("One\n two.\n\n- three\nfour\n- five") == "One two.\n\n- three four\n- five"
    long = rewrap("- " + "word " * 60)
    assert max(map(len, long.splitlines())) <= 119 and long.splitlines()[1].startswith("  word")


# Several seeds


def write_runs(folder: Path, prefix: str, scores: list[float], recipe: str = "") -> list[str]:
    """Results of train.py, one a seed."""
    content = json.loads((CARDS / "results" / "demo.json").read_text())
    files = []
    for seed, score in enumerate(scores):
        best = content["evaluations"][-1] | {"mean_iou": score}
        run = content | {"seed": seed, "name": content["name"] + recipe, "evaluations": [best]}
        files.append(f"{prefix}_seed{seed}.json")
        (folder / "results" / files[-1]).write_text(json.dumps(run))
    return files


def write_tests(folder: Path, prefix: str, scores: list[float], recipe: str = "") -> list[str]:
    """Results of evaluate.py."""
    content = json.loads((CARDS / "results" / "demo.json").read_text())
    files = []
    for seed, score in enumerate(scores):
        files.append(f"{prefix}_seed{seed}_test.json")
        test = {"name": content["name"] + recipe, "split": "test", "metrics": {"mean_iou": score}}
        (folder / "results" / files[-1]).write_text(json.dumps(test))
    return files


@pytest.fixture
def results(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (trained_heads, repository_cards):
        monkeypatch.setattr(module, "CARDS", folder)
    return folder


def test_a_card_of_several_seeds(results: Path) -> None:
    """These weights, mean, lowest, highest, and the baseline's mean, on the split that was measured last."""
    head = TrainedHead(
        runs=write_runs(results, "ours", [0.1, 0.2, 0.3]),
        tests=write_tests(results, "ours", [0.51234, 0.52345, 0.54567]),
        licence="mit",
        dataset=Dataset(name="Shapes", type="shapes"),
        baseline=Baseline(
            name="Plain ViT",
            runs=write_runs(results, "plain", [0.1, 0.2, 0.3], recipe="_plain"),
            tests=write_tests(results, "plain", [0.40001, 0.41117, 0.43339], recipe="_plain"),
        ),
    )
    card = trained_head_card(NAME, head)
    assert "On the test split of Shapes" in card
    head_line = "| | these weights | mean of the seeds 0, 1, 2 | lowest | highest | Plain ViT |"
    assert f"{head_line}\n|---|---|---|---|---|---|\n" in card
    assert "| mean IoU | 0.5123 | 0.5272 | 0.5123 | 0.5457 | 0.4149 |" in card
    assert all(f"(results/{file})" in card for file in [*head.runs, *head.tests, *head.baseline.tests])
    assert check_card(card, results, SECTIONS) == []
    assert "0.5273 is in no result file" in check_card(card.replace("0.5272", "0.5273"), results)[0]


def test_a_baseline_of_other_seeds_is_refused(results: Path) -> None:
    baseline = Baseline(name="Plain ViT", runs=write_runs(results, "plain", [0.1, 0.2]))
    dataset = Dataset(name="Shapes", type="shapes")
    head = TrainedHead(runs=write_runs(results, "ours", [0.1]), licence="mit", dataset=dataset, baseline=baseline)
    with pytest.raises(UserError, match=r"'Plain ViT' must have the same seeds, \[0\], and has \[0, 1\]"):
        trained_head_card(NAME, head)


def test_runs_of_several_recipes_are_refused(results: Path) -> None:
    files = write_runs(results, "ours", [0.1]) + write_runs(results, "other", [0.1], recipe="_other")
    with pytest.raises(UserError, match="needs results of one recipe on one split"):
        read_results(files)


def test_the_best_evaluation_counts(results: Path) -> None:
    content = json.loads((results / "results" / "demo.json").read_text())
    content["best_step"] = 400
    (results / "early.json").write_text(json.dumps(content))
    assert read_result(results / "early.json").numbers["mean_iou"] == pytest.approx(0.4350, abs=1e-4)


def test_a_head_that_was_not_measured(results: Path) -> None:
    head = TrainedHead(runs=["demo.json"], licence="mit", dataset=Dataset(name="Shapes", type="shapes"))
    with pytest.raises(UserError, match=f"hub_cards/{HEAD_FACTS} says nothing of new: run scripts/measure_models.py"):
        trained_head_card("new", head)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {runs: [], licence: mit, dataset: {name: x, type: x}}", "a.runs: "),
        ("a: {runs: [x.json], dataset: {name: x, type: x}}", "a.licence: "),
        ("a: {runs: [x.json], licence: mit, dataset: {name: x, type: x}, tets: [y]}", "a.tets: "),
        (
            "a: {runs: [x], tests: [y, z], licence: mit, dataset: {name: x, type: x}}",
            "a: .*tests must be as many as runs",
        ),
    ],
)
def test_mistakes_in_the_list_of_heads(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "heads.yaml").write_text(text)
    with pytest.raises(UserError, match=f"heads.yaml: {message}"):
        read_heads(tmp_path / "heads.yaml")
