"""The benchmark as jobs: one YAML says what is run, the jobs derive from it, Snakemake runs what is not done."""
