"""What the installers share: streams into slots, spools, archives, foreign programs, and where each piece goes."""
