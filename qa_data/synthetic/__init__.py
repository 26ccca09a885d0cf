"""A rendered gymnast: figure, elements, camera, and the writer of real video files.

Drawn with numpy and OpenCV, written as H.264, annotated in FineGym's own formats.
"""
