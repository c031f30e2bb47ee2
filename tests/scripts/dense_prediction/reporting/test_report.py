"""The report of a run: before its first step, at its end, and that the run is the same without it."""

import base64
import html.parser
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import finetune_with_trainer
import train
from dense_prediction.evaluation.metrics.mistakes import Confusion
from dense_prediction.recipes.loading import load_recipe
from dense_prediction.recipes.settings import Setting
from dense_prediction.reporting.course import draw_confusion
from dense_prediction.reporting.report import Report
from dense_prediction.training.loop import TrainingRun
from scripts_in_process import run_script


SHORT = ["training.steps=4", "training.evaluate_every=2", "data.max_train_samples=5"]
CASES = {
    "upernet": "semantic_segmentation",
    "mask2former": "panoptic_segmentation",
    "mask2former instances": "instance_segmentation",
    "deformable_detr": "object_detection",
}
COLUMNS = {
    "semantic_segmentation": ["IoU", "accuracy"],
    "panoptic_segmentation": ["PQ", "SQ", "RQ"],
    "instance_segmentation": ["mask AP", "mask AP50", "mask AR100"],
    "object_detection": ["box AP", "box AP50", "box AR100"],
}

only_semantic = pytest.mark.parametrize("case", ["upernet"], indirect=True)


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def head_name(case: str) -> str:
    return case.split()[0]


@pytest.fixture(scope="module")
def task(case: str) -> str:
    return CASES[case]


class Page(html.parser.HTMLParser):
    """A page's headings, rows and pictures; tags that are not closed or that would fetch something are refused."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.rows: list[list[str]] = []
        self.pictures: list[Image.Image] = []
        self.text, self._open = "", []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe", "a")
        fields = dict(attributes)
        if tag == "img":
            kind, _, data = str(fields["src"]).partition(";base64,")
            assert kind in ("data:image/png", "data:image/jpeg")
            self.pictures.append(Image.open(io.BytesIO(base64.b64decode(data))))
        elif tag != "meta":
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "h2":
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._open and self._open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        if self._open and self._open[-1] == "h2":
            self.headings[-1] += data


def page_of(output: Path) -> Page:
    return Page((output / "report.html").read_text(encoding="utf-8"))


class Stopped(Exception):
    """In place of the first step."""


def stop(*_: Any) -> None:
    raise Stopped


def begin(recipe_file: Path, output: Path, settings: list[Setting], *overrides: str) -> None:
    run = TrainingRun(load_recipe(recipe_file, [f"output={output}", *SHORT, *overrides]), settings)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(TrainingRun, "_step", stop)
        with pytest.raises(Stopped):
            run.train()


def test_it_is_there_before_the_first_step(
    recipe_file: Path, task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [Setting("training.steps", 4, "5 pictures, <few> times & again")]
    begin(recipe_file, tmp_path / "run", settings, "backbone.freeze_trunk=true")
    page = page_of(tmp_path / "run")
    assert page.headings == [
        "Data",
        "What is annotated",
        "What is learnt",
        "The smallest and the most crowded picture",
        "Settings that follow from the data",
        "Model and machine",
        "Recipe",
    ]
    rows = {row[0]: row[1:] for row in page.rows}
    assert rows["pictures"] == ["5", "2"]
    assert rows["training.steps"] == ["4", "5 pictures, <few> times & again"]
    parts = [[int(cell.replace(",", "")) for cell in rows[name]] for name in ("trunk (plain ViT)", "head", "all")]
    assert parts[0][1] == 0 < parts[0][0] == parts[0][2] <= parts[2][2]
    assert all(whole == trained + frozen for whole, trained, frozen in parts)
    assert rows["precision"] == ["float32"] and rows["deformable attention"] and rows["device"]
    assert len(page.pictures) == 3
    said = capsys.readouterr().out
    labels = [line.split()[0] for line in said.splitlines() if line]
    assert {"train", "validation", "model", "device", "steps", "report"} <= set(labels)
    counts = next(line for line in said.splitlines() if line.startswith("star"))
    assert counts.split() == re.split(r"\s+", " ".join(["star", *rows["star"]]))
    assert "Nothing has been measured yet." in page.text


def test_it_tells_what_has_come_of_the_run(
    recipe_file: Path, task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    assert run_script(train, recipe_file, f"output={output}", *SHORT) == 0
    results, page = json.loads((output / "results.json").read_text()), page_of(output)
    said = capsys.readouterr().out
    assert page.headings[0] == "Curve" and "Predictions" in page.headings
    metric = results["best"]["metric"]
    assert f"The run has ended: the best validation {metric} is {results['best_score']:.4f}" in page.text
    heading = next(row for row in page.rows if row[:2] == ["class", COLUMNS[task][0]])
    assert heading[1 : 1 + len(COLUMNS[task])] == COLUMNS[task]
    assert said.count("  ".join(["class"])) >= 1 and said.count(COLUMNS[task][-1]) == 2, "at every evaluation"
    confusion = Confusion.of_plain(results["confusion"])
    assert confusion.counts.sum() > 0
    drawn = Image.open(output / "confusion.png")
    assert drawn.convert("RGB").tobytes() == draw_confusion(confusion).tobytes()
    assert Image.open(output / "curve.png").width == 1120
    made = json.loads((output / ".vit-comer-run.json").read_text())["made"]
    assert {"report.html", "curve.png", "confusion.png"} <= set(made)


@only_semantic
def test_confusion_is_that_of_the_best_model(recipe_file: Path, tmp_path: Path) -> None:
    run = TrainingRun(load_recipe(recipe_file, [f"output={tmp_path / 'run'}", *SHORT]))
    scores, seen = {2: 0.9, 4: 0.1}, []

    def measure(run: TrainingRun) -> dict[str, Any]:
        numbers = run.experiment.measure(run.accelerator, run.evaluated_model, run.experiment.validation)
        seen.append(run.experiment.confusion.plain())
        return numbers | {"mean_iou": scores[run.state.step]}

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(TrainingRun, "_measure", measure)
        run.train()
    assert seen[0] != seen[1]
    assert run.state.confusion == seen[0]


@only_semantic
def test_a_run_is_the_same_without_it(recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, results = [], []
    for name in ("with", "without"):
        assert run_script(train, recipe_file, f"output={tmp_path / name}", *SHORT) == 0
        weights.append(load_file(tmp_path / name / "last_model" / "model.safetensors"))
        results.append(json.loads((tmp_path / name / "results.json").read_text()))
        for method in ("begin", "tell_time", "write"):
            monkeypatch.setattr(Report, method, lambda *_: None)
    assert not (tmp_path / "without" / "report.html").exists()
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    for key in ("curve", "evaluations", "confusion", "skipped", "best"):
        assert results[0][key] == results[1][key]


@only_semantic
def test_of_a_stream_there_is_less(recipe_file: Path, dataset_folder: Path, tmp_path: Path) -> None:
    stream = ["data.streaming=true", "data.max_train_samples=null", "data.max_validation_samples=null"]
    data = [f"data.path={dataset_folder}", "data.labels=[black, white]", *stream]
    begin(recipe_file, tmp_path / "run", [], *data)
    page = page_of(tmp_path / "run")
    assert page.headings == ["Data", "Model and machine", "Recipe"]
    rows = {row[0]: row[1:] for row in page.rows}
    assert rows["pictures"] == ["a stream of"] * 2
    assert rows["white"] == ["50.00 %"] * 2


@only_semantic
def test_the_time_is_told_once(recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    length = ["training.steps=12", "training.evaluate_every=100", "training.checkpoint_every=100"]
    assert run_script(train, recipe_file, f"output={tmp_path / 'run'}", *length, "training.early_stopping=3") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("about ")]
    assert len(lines) == 1
    assert re.fullmatch(r"about \d+ s left at most for 5 steps of [\d.e-]+ s each; evaluations .* are 1", lines[0])
    assert "Time" in page_of(tmp_path / "run").headings


@only_semantic
def test_the_other_trainer_has_it_too(recipe_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert run_script(finetune_with_trainer, recipe_file, f"output={output}", *SHORT) == 0
    page = page_of(output)
    assert page.headings[:2] == ["Curve", "By class, of the best model"]
    assert next(row for row in page.rows if row[:2] == ["class", "IoU"]) == ["class", "IoU", "accuracy"]
    results = json.loads((output / "results.json").read_text())
    assert Confusion.of_plain(results["confusion"]).counts.sum() > 0
    assert Image.open(output / "confusion.png").width > 100
