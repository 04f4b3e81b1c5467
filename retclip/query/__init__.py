"""Online: label mask proposals by what the database remembers and what the encoders say."""
