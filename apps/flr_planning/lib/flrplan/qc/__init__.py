"""Label QC: rules that say, as data, what is wrong with a label. Never imports torch."""
