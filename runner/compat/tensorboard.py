"""Private APIs of TensorBoard: its events as bytes of an event file. It is imported on use, and needs no TensorFlow.

An event is framed by its length and checksums (`RecordWriter`). The public writers name their files by process and
time, so a delivery that is repeated would add a second copy of each event.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

from runner.compat.private import private_api

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

CHECKED = "2.21.0"


def start(params: Mapping[str, str | float | bool], run_id: str, time_s: float) -> bytes:
    """Return the first events of a file: the version of the format, and the run's options for the page HPARAMS.

    `time_s` is unix seconds, here and below.
    """
    with private_api("tensorboard", CHECKED):
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    options = hparams_pb(dict(params), trial_id=run_id, start_time_secs=time_s)
    return _framed([Event(wall_time=time_s, file_version="brain.Event:2"), Event(wall_time=time_s, summary=options)])


def scalars(values: Mapping[str, float], step: int, time_s: float) -> bytes:
    """Return an event with numbers by name."""
    with private_api("tensorboard", CHECKED):
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
    summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
    return _framed([Event(wall_time=time_s, step=step, summary=summary)])


def text(name: str, markdown: str, step: int, time_s: float) -> bytes:
    """Return an event with a text for the page TEXT."""
    with private_api("tensorboard", CHECKED):
        from tensorboard.compat.proto.event_pb2 import Event
    return _framed([Event(wall_time=time_s, step=step, summary=_text(name, markdown))])


def _text(name: str, markdown: str) -> Summary:
    with private_api("tensorboard", CHECKED):
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype=DT_STRING, string_val=[markdown.encode()], tensor_shape=shape)
    plugin = SummaryMetadata.PluginData(plugin_name="text")
    return Summary(value=[Summary.Value(tag=name, metadata=SummaryMetadata(plugin_data=plugin), tensor=tensor)])


def _framed(events: list[Event]) -> bytes:
    with private_api("tensorboard", CHECKED):
        from tensorboard.summary.writer.record_writer import RecordWriter
    file = io.BytesIO()
    writer = RecordWriter(file)
    for event in events:
        writer.write(event.SerializeToString(deterministic=True))
    return file.getvalue()
