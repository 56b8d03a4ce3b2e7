"""What the stages of topology show and write: profiles of clouds, loops, comparisons."""
