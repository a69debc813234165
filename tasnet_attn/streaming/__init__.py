"""Live separation."""

from tasnet_attn.streaming.command import stream
from tasnet_attn.streaming.onnx import OnnxSteps
from tasnet_attn.streaming.separator import StreamingSeparator
from tasnet_attn.streaming.steps import ModelSteps, Steps, cannot_stream

__all__ = ["ModelSteps", "OnnxSteps", "Steps", "StreamingSeparator", "cannot_stream", "stream"]
