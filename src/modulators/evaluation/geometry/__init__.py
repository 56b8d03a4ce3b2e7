"""What a modulator does to the geometry of states: relations of words, volumes of simplices."""
