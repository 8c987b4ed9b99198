"""The networks: one table of architectures, STU-Net, SwinUNETR, and how published weights are taken into a network."""
