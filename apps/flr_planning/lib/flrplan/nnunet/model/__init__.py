"""A trained model: its folder, checkpoints, architecture check, and the predictor."""
