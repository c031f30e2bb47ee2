"""Streamed datasets: every sample once an epoch, the same at a position however many read and wherever they start."""

import io
import logging
import multiprocessing
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from dense_prediction.batches.options import TransformOptions
from dense_prediction.batches.streams import EvaluationSet, TrainingStream, evaluation_loader, training_loader
from dense_prediction.batches.transforms import EvaluationTransform, TrainingTransform
from dense_prediction.data.formats.datasets_library import DatasetsOptions
from dense_prediction.data.loading import load_data
from dense_prediction.data.samples import Sample
from dense_prediction.data.tables import streaming
from dense_prediction.data.tables.streaming import KEPT_ROWS, Cursor
from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import TASKS


COUNT = 12
BAD = 5
SEMANTIC = TASKS["semantic_segmentation"]
TRANSFORMS = TransformOptions(crop_size=(8, 8))


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` 5 waits five seconds whenever it has read several files to their ends (apache/arrow#45214)."""
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_shards(folder: Path, bad: tuple[int, ...] = (), count: int = COUNT, named: bool = True) -> DatasetsOptions:
    """Three files of images whose brightness is their number; the numbers in `bad` cannot be decoded."""
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.Image(), "name": datasets.Value("string")}
    )
    for split in ("train", "validation"):
        for shard in range(3):
            numbers = range(shard, count, 3)
            pictures = [png(np.full((8, 8, 3), number, dtype=np.uint8)) for number in numbers]
            images = [picture[: 30 if number in bad else None] for number, picture in zip(numbers, pictures)]
            mask = png(np.eye(8, dtype=np.uint8))
            columns = {
                "image": [{"bytes": image, "path": None} for image in images],
                "label": [{"bytes": mask, "path": None}] * len(images),
                "name": [f"picture {number}" if named else None for number in numbers],
            }
            rows = datasets.Dataset.from_dict(columns, features)
            # By default datasets 4 estimates a batch size, and divides by the number of rows.
            rows.to_parquet(folder / "data" / f"{split}-0000{shard}-of-00003.parquet", batch_size=100)
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    return recipe_of(folder)


def write_card(folder: Path, num_examples: int) -> None:
    split = f"{{name: train, num_examples: {num_examples}, num_bytes: 1}}"
    (folder / "README.md").write_text(f"---\ndataset_info: {{splits: [{split}]}}\n---\n")


def recipe_of(folder: Path, **fields: Any) -> DatasetsOptions:
    defaults = {"path": str(folder), "labels": ["a", "b"], "streaming": True, "shuffle_buffer": 5}
    return DatasetsOptions(**(defaults | fields))


def stream_of(recipe: DatasetsOptions, seed: int = 0) -> TrainingStream:
    return TrainingStream(load_data(recipe, SEMANTIC).train, TrainingTransform(TRANSFORMS), seed)


def numbers_of(stream: TrainingStream, positions: range) -> list[int]:
    return [number_of(stream.samples[position]) for position in positions]


def number_of(sample: Sample) -> int:
    return int(sample["image"][0, 0, 0])


def test_each_epoch_is_another_order_of_all_samples(tmp_path: Path) -> None:
    stream = stream_of(write_shards(tmp_path))
    epochs = [numbers_of(stream, range(start, start + COUNT)) for start in (0, COUNT, 2 * COUNT)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert numbers_of(stream_of(recipe_of(tmp_path)), range(COUNT)) == epochs[0]
    assert numbers_of(stream_of(recipe_of(tmp_path), seed=1), range(COUNT)) != epochs[0]
    assert numbers_of(stream, range(3, 7)) == epochs[0][3:7], "going back must give the same order"


@pytest.mark.parametrize("start", [4, COUNT, COUNT + 6, 2 * COUNT])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_reads_what_the_unbroken_one_would(tmp_path: Path, start: int, workers: int) -> None:
    recipe = write_shards(tmp_path)
    unbroken = list(training_loader(stream_of(recipe), range(start + 8), batch_size=2, workers=0))
    torch.manual_seed(123)
    resumed = list(training_loader(stream_of(recipe), range(start, start + 8), batch_size=2, workers=workers))
    assert len(resumed) == 4
    for before, after in zip(unbroken[start // 2 :], resumed, strict=True):
        assert torch.equal(before["pixel_values"], after["pixel_values"])
        names = [[target["name"] for target in batch["targets"]] for batch in (before, after)]
        assert names[0] == names[1]


def test_processes_and_workers_share_an_epoch_without_repeats_or_loss(tmp_path: Path) -> None:
    """Positions dealt out to two processes, each with two workers, as Accelerate deals batches out."""
    recipe = write_shards(tmp_path)
    names = []
    for process in range(2):
        positions = [position for batch in range(process, 6, 2) for position in (2 * batch, 2 * batch + 1)]
        for batch in training_loader(stream_of(recipe), positions, batch_size=2, workers=2):
            names += [target["name"] for target in batch["targets"]]
    assert len(names) == COUNT
    assert len(set(names)) == COUNT


def test_a_streamed_split_is_evaluated_in_order(tmp_path: Path) -> None:
    validation = load_data(write_shards(tmp_path), SEMANTIC).validation
    assert len(validation) == COUNT
    data = EvaluationSet(validation, EvaluationTransform(TRANSFORMS))
    everything = list(evaluation_loader(data, range(COUNT), workers=0))
    assert [batch["targets"][0]["image_id"] for batch in everything] == list(range(COUNT))
    dealt = list(evaluation_loader(data, range(1, COUNT, 2), workers=2))
    for whole, part in zip(everything[1::2], dealt, strict=True):
        assert torch.equal(whole["pixel_values"], part["pixel_values"])
    with pytest.raises(IndexError):
        validation[COUNT]


def test_a_bad_row_is_refused_by_its_name(tmp_path: Path) -> None:
    stream = stream_of(write_shards(tmp_path, bad=(BAD,)))
    with pytest.raises(UserError, match=r"streamed train \(picture 5\): image cannot be decoded: .*data.bad_samples"):
        numbers_of(stream, range(COUNT))


def test_a_bad_row_gives_its_place_to_the_next(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_shards(tmp_path, bad=(BAD, BAD + 1))
    recipe = recipe_of(tmp_path, bad_samples="skip")
    stream = stream_of(recipe)
    with caplog.at_level(logging.WARNING):
        names = [stream[position]["name"] for position in range(2 * COUNT)]
    assert len(set(names)) == COUNT - 2
    assert len(caplog.records) == 2, "each bad file is named once, in whatever epoch"
    assert [name in caplog.text for name in ("picture 5", "picture 6", "picture 7")] == [True, True, False]
    for position in (0, 5, 6, COUNT + 3):
        assert stream_of(recipe)[position]["name"] == names[position], "a run may start anywhere"
    places = [place for place in range(2 * COUNT - 1) if stream.samples[place] is None]
    assert len(places) >= 3
    assert all(names[place] == names[place + 1] for place in places)


def test_loading_processes_count_and_log_together(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_shards(tmp_path, bad=(BAD, BAD + 1))
    stream = stream_of(recipe_of(tmp_path, bad_samples="skip"))
    handler = logging.StreamHandler()  # of the real stderr, which the loading processes write to
    logger = logging.getLogger("dense_prediction.data.bad_samples")
    logger.addHandler(handler)
    try:
        assert len(list(training_loader(stream, range(6 * COUNT), batch_size=2, workers=2))) == 3 * COUNT
    finally:
        logger.removeHandler(handler)
    assert stream.samples.split.num_skipped == 2
    messages = capfd.readouterr().err
    assert [messages.count(f"(picture {number})") for number in (BAD, BAD + 1)] == [1, 1]


def test_rows_without_a_name_are_told_by_their_position(tmp_path: Path) -> None:
    stream = stream_of(write_shards(tmp_path, bad=tuple(range(COUNT)), named=False))
    with pytest.raises(UserError, match="streamed train, position 3: image cannot be decoded"):
        stream.samples[3]


def test_a_stream_of_bad_rows_alone_is_given_up(tmp_path: Path) -> None:
    write_shards(tmp_path, bad=tuple(range(COUNT)))
    with pytest.raises(UserError, match="1000 samples in a row from position 0"):
        stream_of(recipe_of(tmp_path, bad_samples="skip"))[0]


@pytest.mark.parametrize("said", [COUNT - 1, COUNT + 1])
def test_a_card_that_counts_wrong_is_found_out(tmp_path: Path, said: int) -> None:
    """Else an epoch would be longer or shorter than the place that a run resumes at is reckoned with."""
    recipe = write_shards(tmp_path)
    write_card(tmp_path, said)
    split = load_data(recipe, SEMANTIC).train
    message = f"streamed train: the card says {said} rows, but {COUNT} were read"
    stream = split.shuffled(seed=0)
    read = [number_of(stream[position]) for position in range(COUNT)]
    assert sorted(read) == list(range(COUNT))
    with pytest.raises(UserError, match=message):
        stream[COUNT]
    if said > COUNT:
        with pytest.raises(UserError, match=message):
            split[said - 1]


def test_a_card_that_does_not_count(tmp_path: Path) -> None:
    recipe = write_shards(tmp_path)
    write_card(tmp_path, 0)
    assert len(load_data(recipe, SEMANTIC).train) == COUNT


def test_rows_that_nobody_has_counted_are_read_once_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, iterate = [], streaming.iterate

    def iterate_and_count(rows: datasets.IterableDataset) -> Iterator[dict[str, Any]]:
        for row in iterate(rows):
            read.append(row["name"])
            yield row

    monkeypatch.setattr(streaming, "iterate", iterate_and_count)
    stream = load_data(write_shards(tmp_path), SEMANTIC).train.shuffled(seed=0)
    read.clear()  # of the look whether there is any row
    assert [number_of(stream[position]) for position in range(2 * COUNT)]
    assert len(read) == 2 * COUNT


def test_an_empty_stream_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="data.train_split=train: the split is empty"):
        load_data(write_shards(tmp_path, count=0), SEMANTIC)


def test_a_stream_can_be_sent_to_another_process(tmp_path: Path) -> None:
    stream = stream_of(write_shards(tmp_path))
    expected = numbers_of(stream, range(4))
    assert numbers_of(pickle.loads(pickle.dumps(stream)), range(4)) == expected


def test_a_cursor_starts_again_only_when_it_must() -> None:
    starts = []

    def start_at(position: int) -> Any:
        starts.append(position)
        return iter(range(position, 200))

    cursor = Cursor(start_at)
    assert [cursor[position] for position in (3, 4, 4, 9, 3, 50)] == [3, 4, 4, 9, 3, 50]
    assert starts == [3], "a few steps back must not read everything again"
    assert cursor[50 - KEPT_ROWS] == 50 - KEPT_ROWS
    assert starts == [3, 50 - KEPT_ROWS]


def test_a_forked_process_opens_its_own_files() -> None:
    """Two processes that read on from one open file would each get a part of it."""
    starts = []
    cursor = Cursor(lambda position: starts.append(position) or iter(range(position, 9)))
    assert cursor[2] == 2
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    child = context.Process(target=lambda: results.put((cursor[3], list(starts))))
    child.start()
    assert results.get() == (3, [2, 3])
    child.join()
