"""Values and pure functions. Knows no other room of the house."""
