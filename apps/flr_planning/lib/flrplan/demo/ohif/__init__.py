"""The app in OHIF on this machine: Orthanc, the plain MONAI Label server, and a browser that looks at the result."""
