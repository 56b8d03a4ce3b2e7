"""What is shown of QK and OV circuits."""
