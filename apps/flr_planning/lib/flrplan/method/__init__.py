"""The paper's method as data: stages, their input, recipes and variants. No file of nnU-Net, no network is run here."""
