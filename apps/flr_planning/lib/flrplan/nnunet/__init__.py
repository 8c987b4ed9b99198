"""Every contact with nnU-Net: dataset, planning, trainer, published models, in-memory predictor. Nothing else imports it."""
