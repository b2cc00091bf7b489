"""mmrec: item vectors, user vectors and rankings for catalogs of video, sound and text."""
