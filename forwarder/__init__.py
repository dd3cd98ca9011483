"""What Omneo said: documents go from the journal to Omneo, in order, and what came back is kept in the delivery book."""
