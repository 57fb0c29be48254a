"""Training of a model from annotated images: data, changes of crops, the loop, the model's file.

Outlines of other programs are converted here to what a training reads. Networks and the format of
their weights are in ``network``, reading of annotations in ``annotations``; no count imports this.
"""
