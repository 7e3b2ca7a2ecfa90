"""Read labels in the formats of labelling tools and of publishers."""
