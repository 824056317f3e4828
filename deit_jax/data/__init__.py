"""On the host: sources, decoding and cropping, sampling order, the Grain pipeline."""
