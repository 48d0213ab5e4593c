"""Inception v3 as FID has always used it, for distances that other papers' can be compared with. On request: its 95 MB
of weights are not here, and nothing downloads them."""

from pathlib import Path

import torch
from torch import nn

from fer_lib import engine
from fer_lib.errors import FerError

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
"""torch-fidelity's file, converted from TensorFlow's; a release of its repository has it, Apache License 2.0."""


class Inception(nn.Module):
    """The part of a judge that metrics ask for: features, and how many.

    network : torch_fidelity's FeatureExtractorInceptionV3, of its 2048 features.
    """

    n_features = 2048

    def __init__(self, network):
        super().__init__()
        self.network = network

    def features(self, images):
        """Features of images, float [B, 1 or 3, H, W] in 0..1: float32 [B, 2048]. Images are resized to 299 pixels as
        TensorFlow does it; grey ones are given in three equal channels."""
        pixels = images.mul(255).round().to(torch.uint8)
        return self.network(pixels.expand(-1, 3, -1, -1))[0]


def load(path, *, device="auto"):
    """Inception with the weights of a file, for metrics.fid, kid and judge_features in place of a judge.

    path : of `WEIGHTS`. Nothing that the file may hold beside tensors is executed.
    Returns Inception in evaluation mode. Raises FerError when torch-fidelity is not installed, or the file is another.
    Source: Heusel et al. 2017, with torch-fidelity (Obukhov et al. 2020).
    """
    if not Path(path).is_file():
        raise FerError(f"{path} does not exist: give {WEIGHTS} of torch-fidelity.")
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise FerError('Inception needs torch-fidelity: pip install -e ".[inception]".') from error
    try:
        torch.load(path, map_location="cpu", weights_only=True)  # refuses what the next line would execute
        network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(path))
    except Exception as error:  # torch raises many types for a file that is something else
        raise FerError(f"{path} holds no weights of Inception v3 ({type(error).__name__}): give {WEIGHTS} of "
                       "torch-fidelity.") from error
    return Inception(network).to(engine.device(device)).eval()
