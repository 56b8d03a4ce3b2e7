"""States of conversations against each other and against reference states."""
