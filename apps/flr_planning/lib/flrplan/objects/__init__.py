"""Standard objects of what was found in a CT: DICOM SEG (:mod:`seg`) and SR (:mod:`sr`) that refer to its series (:mod:`source`), and
meshes as files (:mod:`mesh_files`). Knows nothing of plans; never imports torch.
"""
