"""What leaves the house: e-mail."""
