"""Find which channels of a model are coupled, by label propagation, and certify the result."""

from .certificate import AtomMask
from .channel_graph import ChannelGraph
from .custom import register_rule
from .groups import LAYERS, ChannelGroup, Producer, has_gamma, mean_gamma, output_first
from .model_trace import ModelTrace, build_graph, certifying, trace
from .preserving import Guard, preserving

__all__ = [
    "LAYERS",
    "AtomMask",
    "ChannelGraph",
    "ChannelGroup",
    "Guard",
    "ModelTrace",
    "Producer",
    "build_graph",
    "certifying",
    "has_gamma",
    "mean_gamma",
    "output_first",
    "preserving",
    "register_rule",
    "trace",
]
