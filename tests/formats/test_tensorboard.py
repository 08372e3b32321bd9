"""Event files opened by TensorBoard's own readers."""
import io
import time

import numpy
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.text import text_plugin


@pytest.fixture(scope="session")
def files(written):
    return sorted(written.glob("events.out.tfevents.*"))


@pytest.fixture(scope="session")
def accumulator(written, files):
    # size_guidance 0: keep all
    result = EventAccumulator(str(written), size_guidance={"scalars": 0, "histograms": 0, "images": 0, "tensors": 0})
    result.Reload()
    return result


def load(path):
    return [Event.FromString(record) for record in RawEventFileLoader(str(path)).Load()]


def test_names(files):
    assert len(files) == 2
    assert all(file.name.endswith(".niti") for file in files)


def test_every_record_is_read(files):
    """The reader checks both CRCs of every frame; nothing in a message is unknown to TensorFlow's definition."""
    first, second = map(load, files)
    assert [event.WhichOneof("what") for event in first] == ["file_version", "session_log"] + 16 * ["summary"]
    assert [event.WhichOneof("what") for event in second] == ["file_version", "session_log"] + 2 * ["summary"]
    for events, step in (first, 0), (second, 6):
        assert events[0].file_version == "brain.Event:2"
        assert events[1].session_log.status == SessionLog.START
        assert events[1].step == step
        for event in events:
            assert abs(event.wall_time - time.time()) < 600
            again = Event()
            again.CopyFrom(event)
            again.DiscardUnknownFields()
            assert again.SerializeToString() == event.SerializeToString()


def test_tags(accumulator):
    tags = accumulator.Tags()
    assert sorted(tags["scalars"]) == ["b", "train/a"]
    assert tags["histograms"] == ["weights/conv"]
    assert tags["images"] == ["picture"]
    assert sorted(tags["tensors"]) == ["_hparams_/session_end_info", "_hparams_/session_start_info", "recipe"]


def test_scalars_after_a_resume(accumulator):
    """The second session starts at step 6, so the first one's later steps are forgotten."""
    values = [(event.step, event.value) for event in accumulator.Scalars("train/a")]
    assert values == [(step, step / 4) for step in range(6)] + [(6, 106.0), (7, 107.0)]


def test_histogram(accumulator, files):
    (event,) = accumulator.Histograms("weights/conv")
    histogram = event.histogram_value
    values = numpy.repeat([-127, -2, 0, 5], [1, 3, 10, 6]) * 2.0**-3
    assert event.step == 2
    assert (histogram.min, histogram.max, histogram.num) == (values.min(), values.max(), len(values))
    # every value lies in the bucket whose edges enclose it
    edges = numpy.array([values.min() - 1] + list(histogram.bucket_limit))
    counts, _ = numpy.histogram(values, edges)
    assert list(histogram.bucket) == list(counts)
    # sums are not kept by the accumulator: from the raw message
    (raw,) = [event.summary.value[0].histo for event in load(files[0])
              if event.WhichOneof("what") == "summary" and event.summary.value[0].tag == "weights/conv"]
    assert raw.sum == values.sum()
    assert raw.sum_squares == (values**2).sum()
    assert list(raw.bucket_limit) == [(mantissa + 0.5) / 8 for mantissa in range(-127, 6)]


def test_torn_file(files, written, tmp_path):
    """What a killed run leaves: TensorBoard reads up to the torn record."""
    raw = files[0].read_bytes()
    torn = tmp_path / files[0].name
    torn.write_bytes(raw[:-5])
    result = EventAccumulator(str(tmp_path))
    result.Reload()
    assert len(result.Scalars("train/a")) == 10
    assert sorted(result.Tags()["tensors"]) == ["_hparams_/session_start_info", "recipe"]  # all but the last record


def test_picture(accumulator):
    (event,) = accumulator.Images("picture")
    assert (event.step, event.width, event.height) == (3, 20, 10)
    pixels = numpy.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
    expected = numpy.full((10, 20, 3), (0x10, 0x20, 0x30), numpy.uint8)
    expected[3:5, 2:4], expected[3:5, 4:6] = 17, 200
    for x, rows in ((8, ("#..", "#..", "#..", "#..", "###")), (12, ("###", "..#", ".##", "...", ".#."))):  # L, and what is not ASCII
        for y, row in enumerate(rows):
            for k, cell in enumerate(row):
                if cell == "#":
                    expected[1 + y, x + k] = (255, 0, 0)
    expected[8:, 18:] = (0, 255, 0)  # all of the X that is on the canvas
    assert (pixels == expected).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_text(accumulator):
    assert accumulator.PluginTagToContent("text") == {"recipe": b""}
    (event,) = accumulator.Tensors("recipe")
    (text,) = event.tensor_proto.string_val
    assert text.decode() == "```yaml\nname: café\n```\n" and event.tensor_proto.dtype == 7  # DT_STRING
    html = text_plugin.text_array_to_html(numpy.array(text), True)
    assert "name: café" in html and "```" not in html and "<code" in html


def test_settings(accumulator):
    """The hparams plugin's own parser, which refuses a version it does not know."""
    contents = accumulator.PluginTagToContent(metadata.PLUGIN_NAME)
    start = metadata.parse_session_start_info_plugin_data(contents[metadata.SESSION_START_INFO_TAG])
    values = {key: getattr(value, value.WhichOneof("kind")) for key, value in start.hparams.items()}
    assert values == {"batch": 64.0, "rate": -0.25, "flip": True, "loss": "niti", "name": "64", "odd": "1.2.3", "mu": "[4, 3]"}
    end = metadata.parse_session_end_info_plugin_data(contents[metadata.SESSION_END_INFO_TAG])
    assert end.status == api_pb2.STATUS_SUCCESS
    assert 0 <= end.end_time_secs - start.start_time_secs < 60
    for content in contents.values():
        again = plugin_data_pb2.HParamsPluginData.FromString(content)
        again.DiscardUnknownFields()
        assert again.SerializeToString(deterministic=True) and again.WhichOneof("data")
