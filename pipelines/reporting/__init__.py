"""What an account is told about itself: exports."""
