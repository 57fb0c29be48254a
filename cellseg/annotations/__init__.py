"""Files in which people drew: COCO JSON, GeoJSON, ImageJ's ROIs and tables of centres.

Here belong their readers, bounded and checked, the masks of their outlines, and regions of a slide.
Results, and training on what was drawn, lie in rooms above; nothing here opens a slide.
"""
