"""Training a ranker: what a step sees (`batches`), how it moves (`steps`), the loop (`loop`)."""
