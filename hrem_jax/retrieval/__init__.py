"""What a trained model is for: encoding, evaluation protocols and search."""
