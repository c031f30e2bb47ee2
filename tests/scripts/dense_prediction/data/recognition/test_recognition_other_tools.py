"""What no format reads ends in a line that says what it was and how it becomes something that is read."""

from pathlib import Path

import pytest

from dense_prediction.errors import UserError
from written_sets import draw, found_in, write


LABELME = '{"version": "5.0.1", "flags": {}, "shapes": [{"label": "cat", "points": [[1, 2]]}], "imagePath": "a.jpg"}'
VIA = '{"a.jpg12": {"fileref": "", "size": 12, "filename": "a.jpg", "base64_img_data": "", "regions": {}}}'
VIA_PROJECT = '{"_via_settings": {}, "_via_img_metadata": {"a.jpg12": {"filename": "a.jpg", "regions": []}}}'
SUPERVISELY = '{"size": {"height": 20, "width": 40}, "objects": [{"classTitle": "person", "bitmap": {}}]}'
CREATEML = '[{"image": "a.jpg", "annotations": [{"label": "cat", "coordinates": {"x": 1, "y": 2}}]}]'
LABEL_STUDIO = '[{"id": 1, "annotations": [{"result": [{"from_name": "label", "to_name": "image"}]}]}]'
DATUMARO = '{"info": {}, "categories": {"label": {}}, "items": [{"id": "a", "annotations": [{"label_id": 0}]}]}'
BDD = '[{"name": "a.jpg", "labels": [{"category": "car", "box2d": {"x1": 1, "y1": 2}}]}]'
CVAT = '<?xml version="1.0"?>\n<annotations><version>1.1</version><meta/><image id="0" name="a.jpg"/></annotations>'
APERIO = '<Annotations MicronsPerPixel="0.25"><Annotation Id="1"><Regions/></Annotation></Annotations>'
KITTI = "Car 0.00 0 -1.57 599.41 156.40 629.75 189.25 2.85 2.63 12.34 0.47 1.49 69.44 -1.56\n"
DOTA = "imagesource:GoogleEarth\ngsd:0.1\n1.0 2.0 5.0 2.0 5.0 6.0 1.0 6.0 plane 0\n"

TOOLS = [
    # https://github.com/wkentaro/labelme/tree/main/examples/instance_segmentation/data_annotated
    ("a.json", LABELME, r"labelme's JSON \(a.json\).*labelme2coco.py"),
    # https://github.com/matterport/Mask_RCNN/releases/tag/v2.1 (balloon), https://www.robots.ox.ac.uk/~vgg/software/via
    ("train/via_region_data.json", VIA, r"JSON of VIA .*Export Annotations \(COCO format\)"),
    ("via_project.json", VIA_PROJECT, "JSON of VIA"),
    ("via_export.csv", "filename,region_shape_attributes\na.jpg,{}\n", "CSV of VIA"),
    # https://docs.supervisely.com/data-organization/00_ann_format_navi
    ("ds0/ann/a.jpg.json", SUPERVISELY, "Supervisely's JSON .*Export as masks"),
    ("meta.json", '{"classes": [{"title": "cat", "shape": "bitmap", "color": "#FF0000"}]}', "Supervisely's JSON"),
    # https://roboflow.com/formats/createml-json
    ("train/_annotations.createml.json", CREATEML, "CreateML's JSON .*export COCO or YOLO"),
    # https://labelstud.io/guide/export#JSON
    ("project-1.json", LABEL_STUDIO, "Label Studio's JSON .*export COCO or YOLO"),
    # https://open-edge-platform.github.io/datumaro/latest/docs/data-formats/formats/datumaro.html
    ("annotations/default.json", DATUMARO, "Datumaro's JSON .*datum convert"),
    # https://doc.bdd100k.com/format.html
    ("labels/det_train.json", BDD, "JSON of BDD100K"),
    # https://datasets.simula.no/kvasir-seg
    ("kavsir_bboxes.json", '{"a": {"bbox": [{"label": "polyp", "xmin": 1}]}}', "JSON with boxes"),
    # https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/
    ("annotations.xml", CVAT, "CVAT's XML .*export COCO 1.0"),
    # https://monuseg.grand-challenge.org/Data
    ("Annotations/a.xml", APERIO, "XML of Aperio ImageScope .*as masks"),
    # https://roboflow.com/formats/tensorflow-object-detection-csv
    (
        "train/_annotations.csv",
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,4,2,cat,1,1,2,2\n",
        "CSV of boxes",
    ),
    # https://github.com/fizyr/keras-retinanet#csv-datasets
    ("annotations.csv", "images/a.jpg,837,346,981,456,cow\n", "CSV of boxes .*COCO JSON, or as YOLO"),
    # https://www.kaggle.com/c/global-wheat-detection/data
    ("train.csv", 'image_id,width,height,bbox,source\na,4,2,"[1, 2, 3, 4]",usask\n', "CSV of boxes"),
    # https://www.kaggle.com/c/airbus-ship-detection/data
    ("train_ship_segmentations.csv", "ImageId,EncodedPixels\na.jpg,1 2\n", "CSV with run lengths"),
    # https://www.cvlibs.net/datasets/kitti/eval_object.php
    ("training/label_2/a.txt", KITTI, "text files of KITTI .*datum convert -if kitti"),
    # https://captain-whu.github.io/DOTA/dataset.html
    ("train/labelTxt/a.txt", DOTA, "text files of DOTA"),
    # https://github.com/cuilimeng/CrackForest-dataset
    ("groundTruth/a.mat", "", "MATLAB's files .*save a PNG for each picture"),
    ("masks/a.npy", "", "NumPy's files .*save a PNG"),
    # https://roboflow.com/formats/tensorflow-tfrecord
    ("train/cats.tfrecord", "", "TFRecord .*export COCO or YOLO"),
]


@pytest.mark.parametrize(("path", "text", "message"), TOOLS, ids=[path for path, _, _ in TOOLS])
def test_what_other_tools_write(path: str, text: str, message: str, tmp_path: Path) -> None:
    draw(tmp_path / "training" / "image_2" / "a.jpg")
    write(tmp_path / path, text)
    for task in ("object_detection", "semantic_segmentation"):
        with pytest.raises(UserError, match=f"holds 1 pictures and {message}") as caught:
            found_in(tmp_path, task)
        assert "\n" not in str(caught.value) and f"({path}), which is not read: " in str(caught.value)


def test_texts_that_are_no_annotations(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    write(tmp_path / "README.txt", "Car pictures from our street, taken in 2019\n")
    write(tmp_path / "patients.csv", "id,age,sex\na,55,male\n")
    write(tmp_path / "info.json", '{"name": "cars", "license": "CC BY"}')
    with pytest.raises(UserError, match="holds 1 pictures and no annotations of them"):
        found_in(tmp_path)
