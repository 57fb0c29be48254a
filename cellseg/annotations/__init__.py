"""What people drew: COCO JSON, run lengths, outlines and GeoJSON, in and out."""
