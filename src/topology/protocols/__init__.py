"""What is fixed before anything is measured, and two published packages' numbers to the last digit."""
