"""Built-in faces: people who do not exist, rendered from a CC0 head; nothing is downloaded.

Two domains: `lab` (frontal, even light, plain ground) and `wild` (pose, light, clutter, degradation).
"""
from fer_lib.rendering.faces import (DOMAINS, REGIONS, region_masks, render_faces, render_image, render_takes,
                                     to_channels)

__all__ = ["DOMAINS", "REGIONS", "region_masks", "render_faces", "render_image", "render_takes",
           "to_channels"]
