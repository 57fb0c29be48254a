"""Networks and their weights: the tissue U-Net and the Mask R-CNN."""
