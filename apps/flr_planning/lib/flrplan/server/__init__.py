"""Every contact with MONAI Label: conf, options, infer tasks, stored labels, the host's quirks. Nothing else imports it."""
