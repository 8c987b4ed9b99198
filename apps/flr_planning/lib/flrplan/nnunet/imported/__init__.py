"""Foreign nnU-Net models taken up as models of a stage."""
