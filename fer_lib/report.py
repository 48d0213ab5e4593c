"""One HTML page of what a profile found."""
