"""What Omneo said: documents go from the journal to Omneo, in order; the answers are kept in the delivery book."""
