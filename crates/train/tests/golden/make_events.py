"""Events as the tensorboard package (2.21) writes them: python make_events.py; makes events.tfevents."""

import pathlib

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

T = 1e9


def scalars(step, **values):
    value = [summary_pb2.Summary.Value(tag=t, simple_value=v) for t, v in values.items()]
    return event_pb2.Event(wall_time=T + 0.25, step=step, summary=summary_pb2.Summary(value=value))


start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
events = [
    event_pb2.Event(wall_time=T, file_version="brain.Event:2"),
    event_pb2.Event(wall_time=T + 0.125, step=3, session_log=start),
    scalars(0, **{"train/loss": 2.5, "train/lr": 0.0}),
    scalars(300, **{"train/loss": float("nan"), "dev/ndcg@10": -1e-6}),
    scalars(1 << 40, **{"größe": float("inf")}),
]
with open(pathlib.Path(__file__).with_name("events.tfevents"), "wb") as f:
    writer = RecordWriter(f)
    for event in events:
        writer.write(event.SerializeToString())
    writer.flush()
