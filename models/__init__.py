"""The floor: what the platform knows. Records and their SQL, the job catalogue, the event journal, settings, errors.

"Model" means data here. Machine-learning things are called engine (generates text) and embedder (makes vectors) and
live in `pipelines/inference/`.
"""
