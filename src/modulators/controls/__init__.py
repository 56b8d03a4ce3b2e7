"""What a modulator is compared with: the same training or the same strengths, without what it is to be judged for."""
