"""A plan: its volumes (:mod:`volumetry`), its files (:mod:`plan`) and its picture (:mod:`picture`). Never imports torch."""
