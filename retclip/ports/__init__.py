"""What the house asks of foreign libraries, and what it offers, as protocols."""
