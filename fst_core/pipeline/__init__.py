"""The pipeline: what a pipeline.toml says, and the stages that carry it out."""
