"""What all tasks share: splits, embeddings, rankings, records with intervals, pictures of failures."""
