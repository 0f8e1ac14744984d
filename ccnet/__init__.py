"""Continuous-convolution networks: exact CC layers, scale sequences, scale ensembles and shift probes.

An implementation of "From Discrete to Continuous Convolution Layers" (arXiv 2006.11120).
"""

from ccnet.backends import available_backends
from ccnet.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ccnet.client import AsyncClient, Client, ConnectionFailed, ServiceError
from ccnet.ensemble import EnsembleOutput, ScaleEnsemble
from ccnet.errors import CcnetError, CheckpointError, DataError, SequenceError
from ccnet.grid import projected_grid
from ccnet.internal_net import InternalNet
from ccnet.layer import CCConv2d, cc_conv2d
from ccnet.models import BlurConvNet, CCNet, ConvNet
from ccnet.plan_cache import PlanCache
from ccnet.sequences import ScaleSequence, sample_scale_sequences

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "BlurConvNet",
    "CCConv2d",
    "CCNet",
    "CcnetError",
    "Checkpoint",
    "CheckpointError",
    "Client",
    "ConnectionFailed",
    "ConvNet",
    "DataError",
    "EnsembleOutput",
    "InternalNet",
    "PlanCache",
    "ScaleEnsemble",
    "ScaleSequence",
    "SequenceError",
    "ServiceError",
    "available_backends",
    "cc_conv2d",
    "load_checkpoint",
    "projected_grid",
    "sample_scale_sequences",
    "save_checkpoint",
]
