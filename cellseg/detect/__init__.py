"""Detectors: what one is, and those that there are."""

from cellseg.detect.protocol import Detections, Detector, DetectorInfo, Sizes

__all__ = ["Detections", "Detector", "DetectorInfo", "Sizes"]
