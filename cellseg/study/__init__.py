"""A study: a folder of images, their result folders, and the tables made from all of them.

Every figure comes from the result folders, whoever counted them: one command, or a cluster's
thousand.
"""
