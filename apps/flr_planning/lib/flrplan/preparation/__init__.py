"""From downloads (TCIA, refined labels, any folder) to the work folder that training and evaluation read."""
