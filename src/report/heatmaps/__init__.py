"""Heat maps of states: a picture with a value in each pixel, framed, and all of them on one sheet."""
