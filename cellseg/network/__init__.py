"""Networks, their weights and what they find: the Mask R-CNN, the tissue U-Net, the Detector.

A detector sees tiles of normalised pixels and gives instances; it knows nothing of slides, files of
results or protocols. Training, and everything that only training needs, is in ``train``.
"""
